#include "postgres/timeline_history.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace holdfast::postgres {
namespace {

constexpr SegmentSize size{16 << 20};
constexpr std::string_view of_17 =
    "1\t0/3000158\tno recovery target specified\n"
    "\n"
    "# a comment\n"
    "9\t0/5000000\tbefore 2026-11-23 08:30:00+00\n"
    "16\t1/20000A0\tat restore point \"x\"\n";

TimelineHistory history() {
  return {{17}, of_17};
}

bool is_corrupt(std::uint32_t timeline, std::string_view text) {
  try {
    TimelineHistory{{timeline}, text};
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

// WF15, B28: inside the file timelines are decimal.
TEST(TimelineHistory, lists_ancestors_from_the_oldest_WF15) {
  const TimelineHistory read = history();
  ASSERT_EQ(read.switches().size(), 3U);
  EXPECT_EQ(read.switches()[1].from.value, 9U);
  EXPECT_EQ(read.switches()[2].from.value, 16U);
  EXPECT_EQ(to_string(read.switches()[2].at), "1/20000A0");
  EXPECT_EQ(read.timeline().value, 17U);
}

TEST(TimelineHistory, knows_on_which_timeline_a_byte_is) {
  const TimelineHistory read = history();
  EXPECT_EQ(read.timeline_at({0x3000157}).value, 1U);
  EXPECT_EQ(read.timeline_at({0x3000158}).value, 9U);
  EXPECT_EQ(read.timeline_at({0x4ffffff}).value, 9U);
  EXPECT_EQ(read.timeline_at({0x5000000}).value, 16U);
  EXPECT_EQ(read.timeline_at({0x1'020000A0}).value, 17U);
  EXPECT_EQ(TimelineHistory({3}).timeline_at({5}).value, 3U);
}

TEST(TimelineHistory, knows_its_members_and_where_they_ended) {
  const TimelineHistory read = history();
  for (const std::uint32_t member : {1U, 9U, 16U, 17U}) EXPECT_TRUE(read.contains({member}));
  for (const std::uint32_t other : {0U, 2U, 10U, 18U}) EXPECT_FALSE(read.contains({other}));
  EXPECT_EQ(read.end_of({9}), Lsn{0x5000000});
  EXPECT_FALSE(read.end_of({17}));
  EXPECT_FALSE(read.end_of({2}));
}

// WF13, U3: what was reached on an ancestor after it was left is not on this history.
TEST(TimelineHistory, passes_only_what_was_reached_before_the_fork_WF13) {
  const TimelineHistory read = history();
  EXPECT_TRUE(read.passes({9}, {0x4000000}));
  EXPECT_TRUE(read.passes({9}, {0x5000000}));
  EXPECT_FALSE(read.passes({9}, {0x5000001}));
  EXPECT_FALSE(read.passes({2}, {0x28}));
  EXPECT_TRUE(read.passes({17}, {~std::uint64_t{0}}));
}

TEST(TimelineHistory, chooses_the_youngest_timeline_that_begins_in_a_segment_or_before) {
  const TimelineHistory read = history();
  EXPECT_EQ(read.timeline_of_segment(2, size).value, 1U);
  EXPECT_EQ(read.timeline_of_segment(3, size).value, 9U);  // 9 begins inside it
  EXPECT_EQ(read.timeline_of_segment(4, size).value, 9U);
  EXPECT_EQ(read.timeline_of_segment(5, size).value, 16U);  // 16 begins where it begins
  EXPECT_EQ(read.timeline_of_segment(0x101, size).value, 16U);
  EXPECT_EQ(read.timeline_of_segment(0x102, size).value, 17U);
  EXPECT_EQ(TimelineHistory({4}).timeline_of_segment(0, size).value, 4U);
}

TEST(TimelineHistory, may_leave_two_timelines_in_one_segment_or_at_one_position) {
  const TimelineHistory read({3}, "1\t0/3000100\tx\n2\t0/3000100\ty\n");
  EXPECT_EQ(read.timeline_at({0x30000ff}).value, 1U);
  EXPECT_EQ(read.timeline_at({0x3000100}).value, 3U);
  EXPECT_EQ(read.timeline_of_segment(3, size).value, 3U);
  EXPECT_EQ(read.timeline_of_segment(2, size).value, 1U);
}

TEST(TimelineHistory, may_end_without_a_line_feed) {
  EXPECT_EQ(TimelineHistory({2}, "1\t0/3000158\tx").switches().size(), 1U);
}

// B32: a history that lost its lines would pass for a timeline without a past.
TEST(TimelineHistory, is_refused_when_it_is_empty_B32) {
  EXPECT_TRUE(is_corrupt(2, ""));
  EXPECT_TRUE(is_corrupt(2, "# nothing\n\n"));
  EXPECT_TRUE(is_corrupt(2, std::string(8, '\0')));
}

TEST(TimelineHistory, is_refused_when_it_makes_no_sense) {
  EXPECT_TRUE(is_corrupt(3, "2\t0/30\tx\n1\t0/40\ty\n"));
  EXPECT_TRUE(is_corrupt(3, "1\t0/30\tx\n1\t0/40\ty\n"));
  EXPECT_TRUE(is_corrupt(3, "1\t0/40\tx\n2\t0/30\ty\n"));
  EXPECT_TRUE(is_corrupt(3, "3\t0/30\tx\n"));
  EXPECT_TRUE(is_corrupt(3, "4\t0/30\tx\n"));
  EXPECT_TRUE(is_corrupt(3, "0\t0/30\tx\n"));
  EXPECT_TRUE(is_corrupt(3, "0x1\t0/30\tx\n"));
  EXPECT_TRUE(is_corrupt(3, "1\t030\tx\n"));
  EXPECT_TRUE(is_corrupt(3, "1\n"));
  EXPECT_TRUE(is_corrupt(3, "-1\t0/30\tx\n"));
}

}  // namespace
}  // namespace holdfast::postgres
