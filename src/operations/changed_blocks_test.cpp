#include "operations/changed_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/testing.h"

namespace holdfast::operations {
namespace {

using base::testing::Random;
using postgres::RelationId;
using Pages = std::vector<std::uint32_t>;

constexpr RelationId table{1663, 5, 16384};
constexpr RelationId other{1663, 5, 16385};

TEST(ChangedBlocks, knows_what_it_was_told_and_nothing_else) {
  ChangedBlocks changed;
  changed.add(table, 7);
  changed.add(table, 3);
  changed.add(table, 7);
  EXPECT_EQ(changed.pages_of({table, 0, 131072}), (Pages{3, 7}));
  EXPECT_EQ(changed.pages_of({table, 1, 131072}), Pages{});
  EXPECT_EQ(changed.pages_of({other, 0, 131072}), Pages{});
}

TEST(ChangedBlocks, counts_pages_from_the_beginning_of_each_file) {
  ChangedBlocks changed;
  changed.add(table, 131071);
  changed.add(table, 131072);
  changed.add(table, 300000);
  EXPECT_EQ(changed.pages_of({table, 0, 131072}), Pages{131071});
  EXPECT_EQ(changed.pages_of({table, 1, 131072}), Pages{0});
  EXPECT_EQ(changed.pages_of({table, 2, 131072}), Pages{300000 - 262144});
  // A server that was built with small files (B1 is about these boundaries).
  EXPECT_EQ(changed.pages_of({table, 131071 / 100, 100}), (Pages{71, 72}));
}

TEST(ChangedBlocks, takes_all_behind_a_truncation_in_every_file) {
  ChangedBlocks changed;
  changed.add(table, 2);
  changed.add(table, 9);
  changed.add_from(table, 12);
  changed.add_from(table, 8);
  EXPECT_EQ(changed.pages_of({table, 0, 10}), (Pages{2, 8, 9}));
  EXPECT_EQ(changed.pages_of({table, 1, 10}), std::nullopt);
  EXPECT_EQ(changed.pages_of({other, 0, 10}), Pages{});
}

TEST(ChangedBlocks, takes_all_of_a_database_that_was_made_anew) {
  ChangedBlocks changed;
  changed.add_database(1663, 5);
  EXPECT_EQ(changed.pages_of({table, 0, 10}), std::nullopt);
  EXPECT_EQ(changed.pages_of({{1663, 6, 16384}, 0, 10}), Pages{});
}

TEST(ChangedBlocks, knows_what_was_written_behind_the_last_cut) {
  ChangedBlocks changed;
  changed.add(table, 2);
  changed.add(table, 9);
  changed.add(table, 70000);
  changed.add_from(table, 8);
  changed.add(table, 8);
  EXPECT_EQ(changed.written_pages_of({table, 0, 131072}), (Pages{2, 8}));
  EXPECT_EQ(changed.limit_of(table), 8U);
  ChangedBlocks later;
  later.add_from(table, 3);
  later.add(table, 5);
  changed.merge(std::move(later));
  EXPECT_EQ(changed.written_pages_of({table, 0, 131072}), (Pages{2, 5}));
  EXPECT_EQ(changed.pages_of({table, 0, 6}), (Pages{2, 3, 4, 5}));
  EXPECT_EQ(changed.written_pages_of({other, 0, 131072}), Pages{});
}

/// Writes and cuts in any order, in parts that are put together, against a plain set.
TEST(ChangedBlocks, is_the_same_as_a_set_that_is_cut) {
  Random random(2);
  for (std::size_t round = 0; round < base::testing::fuzz_iterations(60); ++round) {
    std::vector<ChangedBlocks> parts(1 + random.below(4));
    std::set<std::uint32_t> truth;
    const std::uint32_t range = 1U << (4 + random.below(16));
    for (ChangedBlocks& part : parts) {
      for (std::size_t i = random.below(9000); i > 0; --i) {
        const auto block = static_cast<std::uint32_t>(random.below(range));
        if (random.below(3000) == 0) {
          part.add_from(table, block);
          truth.erase(truth.lower_bound(block), truth.end());
        } else {
          part.add(table, block);
          truth.insert(block);
        }
      }
    }
    ChangedBlocks all;
    for (ChangedBlocks& part : parts) all.merge(std::move(part));
    const auto written = all.written_pages_of({table, 0, range});
    EXPECT_EQ(std::set<std::uint32_t>(written.begin(), written.end()), truth);
    const auto changed = all.pages_of({table, 0, range});
    if (!changed) continue;  // cut off at 0
    EXPECT_TRUE(std::ranges::includes(*changed, truth)) << "what was written has changed";
  }
}

/// Against a plain set, over all sizes that a chunk may have, merged from parts in any order.
TEST(ChangedBlocks, is_the_same_as_a_set_of_numbers) {
  Random random(1);
  for (std::size_t round = 0; round < base::testing::fuzz_iterations(60); ++round) {
    std::vector<ChangedBlocks> parts(1 + random.below(4));
    std::set<std::uint32_t> truth;
    const std::uint32_t range = 1U << (4 + random.below(16));
    for (std::size_t i = random.below(20000); i > 0; --i) {
      const auto block = static_cast<std::uint32_t>(random.below(range));
      parts[random.below(parts.size())].add(table, block);
      truth.insert(block);
    }
    ChangedBlocks all;
    for (ChangedBlocks& part : parts) all.merge(std::move(part));
    const std::uint32_t segment_blocks = 1 + static_cast<std::uint32_t>(random.below(200000));
    std::set<std::uint32_t> found;
    for (std::uint32_t segment = 0; segment <= range / segment_blocks; ++segment) {
      const auto pages = all.pages_of({table, segment, segment_blocks});
      ASSERT_TRUE(pages);
      for (const std::uint32_t page : *pages) {
        EXPECT_LT(page, segment_blocks);
        found.insert(segment * segment_blocks + page);
      }
    }
    EXPECT_EQ(found, truth);
  }
}

TEST(ChangedBlocks, takes_little_memory_for_many_blocks) {
  ChangedBlocks changed;
  for (std::uint32_t block = 0; block < 1'000'000; ++block) changed.add(table, block);
  EXPECT_LT(changed.footprint(), 1'000'000U);
}

}  // namespace
}  // namespace holdfast::operations
