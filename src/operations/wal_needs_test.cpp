#include "operations/wal_needs.h"

#include <gtest/gtest.h>

#include <set>

#include "base/testing.h"
#include "operations/expired_wal.h"
#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using base::testing::Random;
using postgres::Lsn;
using postgres::Segment;
using postgres::Timeline;
using repository::testing::place;

constexpr postgres::SegmentSize size{1 << 20};

/// A repository in memory with the WAL files that a test names.
class Archive {
 public:
  void segment(std::uint32_t timeline, std::uint64_t number) {
    put(postgres::file_name({{timeline}, number}, size));
  }
  void history(std::uint32_t timeline, std::string_view text) {
    archive_.put(postgres::history_file_name({timeline}), base::view(text), 1);
  }
  WalCoverage coverage() const { return {archive_, size}; }
  const repository::Repository& repository() const { return made_.repository; }
  repository::testing::Objects& objects() { return *made_.objects; }

 private:
  void put(const std::string& name) { archive_.put(name, base::view("x"), 1); }
  repository::testing::TestRepository made_{false};
  repository::WalArchive archive_{made_.repository, place};
};

BackupInfo backup(std::uint32_t timeline, Lsn start, Lsn stop) {
  BackupInfo made;
  made.place = place;
  made.timeline = {timeline};
  made.start = start;
  made.stop = stop;
  made.segment_size = size;
  return made;
}

Lsn in_segment(std::uint64_t number, std::uint64_t offset = 100) {
  return {number * size.bytes + offset};
}

TEST(WalNeeds, GC2_everything_from_the_segment_of_the_start_on) {
  const WalNeeds needs(Archive().coverage(), {backup(1, in_segment(5), in_segment(6))}, {});
  EXPECT_FALSE(needs.needs({{1}, 4}));
  EXPECT_TRUE(needs.needs({{1}, 5}));
  EXPECT_TRUE(needs.needs({{1}, 1'000'000}));
}

TEST(WalNeeds, of_a_backup_for_itself_only_start_to_stop) {
  const WalNeeds needs(
      Archive().coverage(), {},
      {backup(1, in_segment(5), in_segment(7)), backup(1, in_segment(20), in_segment(22, 0))});
  EXPECT_FALSE(needs.needs({{1}, 4}));
  EXPECT_TRUE(needs.needs({{1}, 5}));
  EXPECT_TRUE(needs.needs({{1}, 7}));
  EXPECT_FALSE(needs.needs({{1}, 8}));
  EXPECT_TRUE(needs.needs({{1}, 21}));
  EXPECT_FALSE(needs.needs({{1}, 22})) << "it stopped at its beginning";
}

TEST(WalNeeds, GC6_all_timelines_that_descend_and_none_that_left_before) {
  Archive archive;
  archive.history(2, "1\t0/A00000\tx\n");                  // left 1 at the start of segment 10
  archive.history(3, "1\t0/A00000\tx\n2\t0/F80000\tx\n");  // left 2 in the middle of 15
  archive.history(4, "1\t0/300000\tx\n");                  // left 1 at segment 3
  const WalNeeds needs(archive.coverage(), {backup(1, in_segment(5), in_segment(6))}, {});
  EXPECT_TRUE(needs.needs({{1}, 9}));
  EXPECT_TRUE(needs.needs({{1}, 99})) << "timeline 1 may go on";
  EXPECT_TRUE(needs.needs({{2}, 10}));
  EXPECT_TRUE(needs.needs({{2}, 99}));
  EXPECT_TRUE(needs.needs({{3}, 15}));
  EXPECT_FALSE(needs.needs({{4}, 3}));
  EXPECT_FALSE(needs.needs({{4}, 99})) << "no backup leads to timeline 4";

  const WalNeeds of_switch(archive.coverage(), {backup(3, in_segment(15, 0x90000), in_segment(16))},
                           {});
  EXPECT_TRUE(of_switch.needs({{2}, 15})) << "timeline 3 left timeline 2 within it";
  EXPECT_FALSE(of_switch.needs({{2}, 16}));

  const WalNeeds of_third(archive.coverage(), {backup(3, in_segment(20), in_segment(21))}, {});
  EXPECT_FALSE(of_third.needs({{1}, 30}));
  EXPECT_FALSE(of_third.needs({{2}, 30}));
  EXPECT_FALSE(of_third.needs({{3}, 19}));
  EXPECT_TRUE(of_third.needs({{3}, 20}));
}

/// Random trees of timelines: every segment that replay from a backup on any history reads must be
/// needed, and nothing before the oldest start.
TEST(WalNeeds, GC6_agrees_with_replay_on_any_tree_of_timelines) {
  for (std::uint64_t seed = 1; seed <= base::testing::fuzz_iterations(60); ++seed) {
    Random random(seed);
    Archive archive;
    // Each timeline: the switches that lead to it.
    std::map<std::uint32_t, std::vector<std::pair<std::uint32_t, Lsn>>> trees{{1, {}}};
    for (std::uint32_t timeline = 2; timeline < 2 + random.below(5); ++timeline) {
      const auto parent = static_cast<std::uint32_t>(1 + random.below(timeline - 1));
      auto way = trees.at(parent);
      const std::uint64_t from = way.empty() ? 1 : way.back().second.value / size.bytes + 1;
      const std::uint64_t offset = random.chance(30) ? 0 : 1 + random.below(size.bytes - 1);
      way.emplace_back(parent, in_segment(from + random.below(10), offset));
      std::string text;
      for (const auto& [each, at] : way) {
        text += fmt::format("{}\t{}\tx\n", each, postgres::to_string(at));
      }
      archive.history(timeline, text);
      trees[timeline] = way;
    }
    const auto chosen = static_cast<std::uint32_t>(1 + random.below(trees.size()));
    const auto& own = trees.at(chosen);
    const std::uint64_t first = own.empty() ? 1 : own.back().second.value / size.bytes + 1;
    const Lsn start = in_segment(first + random.below(8));
    const BackupInfo made = backup(chosen, start, {start.value + 1 + random.below(3 * size.bytes)});
    const WalCoverage coverage = archive.coverage();
    const WalNeeds needs(coverage, {made}, {});
    for (const auto& [timeline, way] : trees) {
      const auto history = coverage.history({timeline}).value();
      if (!history.passes(made.timeline, made.stop)) continue;
      for (std::uint64_t number = start.value / size.bytes; number < 60; ++number) {
        EXPECT_TRUE(needs.needs({history.timeline_of_segment(number, size), number}))
            << "seed " << seed << " timeline " << timeline << " segment " << number;
        EXPECT_TRUE(needs.needs({history.timeline_at({number * size.bytes}), number}));
      }
    }
    for (const auto& [timeline, way] : trees) {
      for (std::uint64_t number = 0; number < start.value / size.bytes; ++number) {
        EXPECT_FALSE(needs.needs({{timeline}, number})) << "seed " << seed;
      }
      const bool reached = coverage.history({timeline})->passes(made.timeline, made.stop);
      const bool way_there = timeline == chosen || reached;
      const bool on_a_way = std::ranges::any_of(trees, [&](const auto& other) {
        const auto history = coverage.history({other.first}).value();
        return history.contains({timeline}) && history.passes(made.timeline, made.stop);
      });
      if (!way_there && !on_a_way) {
        EXPECT_FALSE(needs.needs({{timeline}, 59})) << "seed " << seed;
      }
    }
  }
}

class ExpiredWalTest : public ::testing::Test {
 protected:
  std::set<std::uint64_t> read(std::uint32_t timeline) {
    const ExpiredWal record(archive_.repository(), place);
    std::set<std::uint64_t> found;
    for (std::uint64_t number = 0; number < 40; ++number) {
      if (record.contains({{timeline}, number})) found.insert(number);
    }
    return found;
  }
  std::vector<std::string> records() { return archive_.objects().names_with("/expired-wal/"); }
  Archive archive_;
};

TEST_F(ExpiredWalTest, remembers_what_went_in_one_object_however_often_it_is_written) {
  std::set<std::uint64_t> expected;
  Random random(7);
  for (int round = 0; round < 12; ++round) {
    ExpiredWal record(archive_.repository(), place);
    const std::uint64_t first = random.below(36);
    const std::uint64_t last = first + random.below(4);
    record.add({1}, first, last);
    for (std::uint64_t number = first; number <= last; ++number) expected.insert(number);
    record.write(size);
    EXPECT_EQ(read(1), expected);
    EXPECT_EQ(records().size(), 1U);
  }
  EXPECT_TRUE(read(2).empty());
}

TEST_F(ExpiredWalTest, GC5_a_record_that_is_not_as_written_excuses_nothing) {
  ExpiredWal record(archive_.repository(), place);
  record.add({1}, 3, 5);
  record.write(size);
  const std::string name = records().at(0);
  const base::Bytes whole = archive_.objects().at(name);
  for (std::size_t at = 0; at < whole.size(); at += 11) {
    archive_.objects().at(name) = whole;
    archive_.objects().at(name)[at] ^= 1;
    EXPECT_TRUE(read(1).empty()) << at;
  }
}

}  // namespace
}  // namespace holdfast::operations
