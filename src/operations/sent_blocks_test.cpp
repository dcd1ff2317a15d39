#include "operations/sent_blocks.h"

#include <gtest/gtest.h>

namespace holdfast::operations {
namespace {

using postgres::IncrementalHeader;
using postgres::RelationId;

constexpr RelationId table{1663, 5, 16384};
constexpr RelationSegment file{table, 0, 131072};

TEST(SentBlocks, all_that_was_named_must_have_come) {
  ChangedBlocks changes;
  changes.add(table, 3);
  changes.add(table, 7);
  EXPECT_EQ(missing_page(changes, file, {10, {3, 7}}), std::nullopt);
  EXPECT_EQ(missing_page(changes, file, {10, {3, 5, 7}}), std::nullopt)
      << "more than that may come";
  EXPECT_EQ(missing_page(changes, file, {10, {7}}), 3U);
  EXPECT_EQ(missing_page(changes, file, {10, {}}), 3U);
  EXPECT_EQ(missing_page(changes, {{1663, 5, 16385}, 0, 131072}, {10, {}}), std::nullopt);
}

// What the server forgets if it reads the newer of two summaries first.
TEST(SentBlocks, what_was_written_behind_a_cut_must_have_come) {
  ChangedBlocks changes;
  changes.add(table, 12);
  changes.add_from(table, 8);
  changes.add(table, 9);
  EXPECT_EQ(missing_page(changes, file, {10, {9}}), std::nullopt) << "12 was cut off";
  EXPECT_EQ(missing_page(changes, file, {10, {}}), 9U);
  changes.add_from(table, 9);
  EXPECT_EQ(missing_page(changes, file, {12, {}}), std::nullopt);
  changes.add(table, 11);
  changes.add_from(table, 12);  // a later cut further behind takes nothing of that away
  EXPECT_EQ(missing_page(changes, file, {12, {}}), 11U);
}

TEST(SentBlocks, what_the_file_no_longer_has_need_not_come) {
  ChangedBlocks changes;
  changes.add(table, 3);
  changes.add(table, 20);
  EXPECT_EQ(missing_page(changes, file, {10, {3}}), std::nullopt);
  EXPECT_EQ(missing_page(changes, file, {10, {3, 25}}), 20U) << "it is longer than it says";
}

TEST(SentBlocks, what_was_made_anew_must_not_come_in_part) {
  ChangedBlocks dropped;
  dropped.add_from(table, 0);
  dropped.add(table, 1);
  EXPECT_EQ(missing_page(dropped, file, {2, {1}}), 0U);
  ChangedBlocks copied;
  copied.add_database(1663, 5);
  EXPECT_EQ(missing_page(copied, file, {2, {0, 1}}), 0U);
  // Cut off in the file before this one: all of it is new.
  ChangedBlocks cut;
  cut.add_from(table, 90);
  cut.add(table, 95);
  cut.add(table, 105);
  EXPECT_EQ(missing_page(cut, {table, 1, 100}, {10, {5}}), 0U);
  EXPECT_EQ(missing_page(cut, {table, 0, 100}, {96, {95}}), std::nullopt);
  EXPECT_EQ(missing_page(cut, {table, 0, 100}, {96, {}}), 95U);
}

TEST(SentBlocks, are_counted_from_the_beginning_of_each_file) {
  ChangedBlocks changes;
  changes.add(table, 131071);
  changes.add(table, 131072);
  changes.add(table, 131079);
  EXPECT_EQ(missing_page(changes, file, {131072, {131071}}), std::nullopt);
  EXPECT_EQ(missing_page(changes, file, {131072, {}}), 131071U);
  EXPECT_EQ(missing_page(changes, {table, 1, 131072}, {10, {0, 7}}), std::nullopt);
  EXPECT_EQ(missing_page(changes, {table, 1, 131072}, {10, {0}}), 7U);
}

TEST(SentBlocks, are_remembered_of_all_files) {
  SentBlocks sent;
  sent.add(file, {10, {1, 2}});
  sent.add({table, 1, 131072}, {10, {}});
  sent.add({{1663, 5, 16385}, 0, 131072}, {10, {4}});
  ChangedBlocks changes;
  changes.add(table, 2);
  changes.add({1663, 5, 16385}, 4);
  changes.add({1663, 5, 16386}, 4);  // it came whole, or not at all
  EXPECT_EQ(sent.find_missing(changes), "");
  changes.add({1663, 5, 16385}, 3);
  EXPECT_EQ(sent.find_missing(changes), "page 3 of file 0 of relation 16385 in database 5");
}

}  // namespace
}  // namespace holdfast::operations
