#include "operations/entry_sorter.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::operations {
namespace {

using repository::FileEntry;

class EntrySorting : public testing::Test {
 protected:
  /// Files in no order, some with runs in packs.
  EntrySorting() {
    base::testing::Random random(4);
    for (int i = 0; i < 3000; ++i) {
      FileEntry entry{
          fmt::format("base/{}{}{}", random.below(50), random.chance(50) ? "/" : ".", i),
          8192,
          0600,
          "a:b",
          0,
          0,
          {},
          {}};
      repository::PackId pack;
      pack.bytes[0] = static_cast<std::uint8_t>(random.below(5));
      if (random.chance(30)) entry.hashes = {random.next()};
      entry.runs = {{1, pack, {static_cast<std::uint32_t>(i)}}};
      entries_.push_back(entry);
    }
  }

  std::vector<FileEntry> sorted(std::size_t limit) {
    EntrySorter sorter(limit);
    for (const FileEntry& entry : entries_) sorter.add(entry);
    std::vector<FileEntry> all;
    sorter.drain([&](FileEntry entry) { all.push_back(std::move(entry)); });
    return all;
  }

  std::vector<FileEntry> entries_;
};

TEST_F(EntrySorting, files_are_in_path_order_with_and_without_a_temporary_file) {
  auto expected = entries_;
  std::ranges::sort(expected, repository::comes_before, &FileEntry::path);
  for (const std::size_t limit : {2UL, 100UL, 777UL, 1000000UL}) {
    const auto all = sorted(limit);
    ASSERT_EQ(all.size(), expected.size());
    for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], expected[i]);
  }
}

TEST_F(EntrySorting, a_file_that_came_twice_is_refused) {
  entries_.push_back(entries_.front());
  EXPECT_THROW(sorted(100), base::Error);
}

}  // namespace
}  // namespace holdfast::operations
