#include "operations/wal_coverage.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using postgres::Lsn;
using postgres::Timeline;
using postgres::TimelineHistory;
using repository::testing::place;

constexpr postgres::SegmentSize size{1 << 20};

Lsn at(std::uint64_t segment, std::uint64_t offset = 0) {
  return {segment * size.bytes + offset};
}

/// Segments 3 to 9 of timeline 1, left at 6 and a half for timeline 2, which goes to 9.
class CoverageTest : public testing::Test {
 protected:
  CoverageTest() {
    for (std::uint64_t number = 3; number < 10; ++number) put(1, number);
    for (std::uint64_t number = 6; number < 10; ++number) put(2, number);
  }
  void put(std::uint32_t timeline, std::uint64_t number) {
    archive_.put(postgres::file_name({{timeline}, number}, size), base::view("x"), 1);
  }
  void record_break(std::uint32_t timeline, Lsn where) {
    archive_.gaps().record({timeline, where.value, where.value, {}, "set back"});
  }
  Lsn end(const TimelineHistory& history, Lsn from) const {
    return WalCoverage(archive_, size).contiguous_end(history, from);
  }

  repository::testing::TestRepository made_{false};
  repository::WalArchive archive_{made_.repository, place};
  TimelineHistory first_{Timeline{1}};
  TimelineHistory second_{Timeline{2}, "1\t0/680000\tx\n"};
};

TEST_F(CoverageTest, WAL_ends_at_a_break_for_who_comes_from_before_it_U4) {
  EXPECT_EQ(end(first_, at(3)), at(10));
  record_break(1, at(5));
  EXPECT_EQ(end(first_, at(3)), at(5));
  EXPECT_EQ(end(first_, at(4, 77)), at(5));
  EXPECT_EQ(end(first_, at(5)), at(10));
  EXPECT_EQ(end(first_, at(5, 40)), at(10));
  const WalCoverage coverage(archive_, size);
  EXPECT_TRUE(coverage.has_segment_behind(first_, at(5)));
  EXPECT_TRUE(coverage.breaks_at(first_, at(5)));
  EXPECT_FALSE(coverage.breaks_at(first_, at(6)));
  EXPECT_FALSE(coverage.breaks_at(first_, at(0)));
}

TEST_F(CoverageTest, a_break_is_one_of_all_histories_that_came_after_it_and_of_no_other) {
  record_break(1, at(4));
  EXPECT_EQ(end(second_, at(3)), at(4));
  record_break(1, at(8));  // timeline 2 had left before
  EXPECT_EQ(end(second_, at(5)), at(10));
  EXPECT_EQ(end(first_, at(5)), at(8));
  record_break(2, at(6));  // the first segment of timeline 2 is of another life than 1's
  EXPECT_EQ(end(second_, at(5)), at(6));
  EXPECT_EQ(end(first_, at(5)), at(8));
}

TEST_F(CoverageTest, a_break_behind_what_is_there_changes_nothing) {
  record_break(1, at(20));
  EXPECT_EQ(end(first_, at(3)), at(10));
  EXPECT_FALSE(WalCoverage(archive_, size).has_segment_behind(first_, at(10)));
}

}  // namespace
}  // namespace holdfast::operations
