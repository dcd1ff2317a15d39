#include "operations/resume_point.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using base::Bytes;
using postgres::Lsn;
using postgres::SegmentSize;
using postgres::Timeline;
using postgres::TimelineHistory;
using repository::testing::place;

constexpr SegmentSize size{1 << 20};

Lsn at(std::uint64_t segment, std::uint64_t offset = 0) {
  return {segment * size.bytes + offset};
}

/// Which WAL is there decides; what is in it does not.
class Resume : public ::testing::Test {
 protected:
  void segments(std::uint32_t timeline, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t number = first; number <= last; ++number) {
      archive_.put(postgres::file_name({{timeline}, number}, size), Bytes{1}, 1);
    }
  }
  void slice(std::uint32_t timeline, std::uint64_t number, std::uint64_t from, std::uint64_t to) {
    archive_.slices().put(postgres::file_name({{timeline}, number}, size),
                          number * size.bytes + from, Bytes(to - from));
  }
  void backup(std::uint32_t timeline, std::uint64_t segment) {
    BackupInfo info;
    info.timeline = {timeline};
    info.start = at(segment, 40);
    info.stop = at(segment, 5000);
    backups_.push_back(info);
  }
  std::vector<ResumePoint> points(const TimelineHistory& history, std::optional<Lsn> slot,
                                  Lsn flushed) const {
    return resume_points(WalCoverage(archive_, size), backups_, history, slot, flushed);
  }

  repository::testing::TestRepository made_{false};
  repository::WalArchive archive_{made_.repository, place};
  std::vector<BackupInfo> backups_;
  TimelineHistory first_{Timeline{1}};
  TimelineHistory second_{Timeline{2}, "1\t0/A01000\tpromoted\n"};  // in segment 10
};

TEST_F(Resume, an_empty_repository_begins_where_the_slot_does_without_a_gap) {
  const auto found = points(first_, at(7, 300), at(9, 5));
  EXPECT_EQ(found[0].start, at(7));
  EXPECT_TRUE(found[0].missing.empty());
  EXPECT_FALSE(found[0].needs_backup);
}

TEST_F(Resume, goes_on_at_the_end_of_the_slices) {
  segments(1, 3, 5);
  backup(1, 3);
  slice(1, 6, 0, 1000);
  slice(1, 6, 1000, 1500);
  EXPECT_EQ(points(first_, at(6), at(8))[0].start, at(6, 1500));
  slice(1, 6, 2000, 2500);  // behind a hole
  EXPECT_EQ(points(first_, at(6), at(8))[0].start, at(6, 1500));
}

TEST_F(Resume, WR6_between_a_backup_and_the_first_slot_nothing_is_passed_over_in_silence) {
  segments(1, 3, 3);
  backup(1, 3);
  const auto found = points(first_, at(7, 300), at(9));
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].start, at(4));  // the server may still have it (WR9)
  EXPECT_TRUE(found[0].missing.empty());
  EXPECT_FALSE(found[0].needs_backup);
  EXPECT_EQ(found[1].start, at(7));
  ASSERT_EQ(found[1].missing.size(), 1U);
  EXPECT_EQ(found[1].missing[0].from, at(4));
  EXPECT_EQ(found[1].missing[0].to, at(7));
  EXPECT_TRUE(found[1].needs_backup);
  EXPECT_EQ(found[2].start, at(9));
}

TEST_F(Resume, WR11_a_gap_begins_at_the_end_of_the_archive_not_at_the_oldest_backup) {
  segments(1, 3, 50);
  backup(1, 3);
  backup(1, 20);
  slice(1, 51, 0, 70);
  const auto found = points(first_, at(60), at(60));
  EXPECT_EQ(found[0].start, at(51, 70));
  ASSERT_EQ(found[1].missing.size(), 1U);
  EXPECT_EQ(found[1].missing[0].from, at(51, 70));
  EXPECT_EQ(found[1].missing[0].to, at(60));
}

TEST_F(Resume, behind_an_old_gap_it_goes_on_at_the_end_and_still_wants_a_backup) {
  segments(1, 3, 5);
  backup(1, 3);
  segments(1, 8, 9);  // after a gap
  const auto found = points(first_, at(10), at(12));
  EXPECT_EQ(found[0].start, at(6));
  EXPECT_EQ(found[1].start, at(10));
  ASSERT_EQ(found[1].missing.size(), 1U);
  EXPECT_EQ(found[1].missing[0].from, at(6));
  EXPECT_EQ(found[1].missing[0].to, at(8));
  EXPECT_TRUE(found[1].needs_backup);
  // A later gap is one more.
  const auto later = points(first_, at(11), at(12));
  ASSERT_EQ(later[2].missing.size(), 2U);
  EXPECT_EQ(later[2].missing[1].from, at(10));
  EXPECT_EQ(later[2].missing[1].to, at(11));
  backup(1, 8);
  EXPECT_EQ(points(first_, at(10), at(12))[0].start, at(10));
  EXPECT_FALSE(points(first_, at(10), at(12))[0].needs_backup);
}

TEST_F(Resume, WR1_after_a_promotion_it_goes_on_at_the_end_of_the_old_timeline) {
  segments(1, 3, 7);
  backup(1, 3);
  slice(1, 8, 0, 100);
  const auto found = points(second_, at(12), at(13));
  EXPECT_EQ(found[0].start, at(8, 100));
  EXPECT_EQ(second_.timeline_at(found[0].start), Timeline{1});
}

TEST_F(Resume, WR10_what_the_old_timeline_has_behind_the_fork_does_not_count) {
  segments(1, 3, 20);
  slice(1, 21, 0, 100);
  backup(1, 3);
  backup(1, 15);  // on the timeline that was left
  const auto found = points(second_, at(12), at(13));
  EXPECT_EQ(found[0].start, at(10, 0x1000));
  EXPECT_EQ(second_.timeline_at(found[0].start), Timeline{2});
  segments(2, 10, 11);
  EXPECT_EQ(points(second_, at(12), at(13))[0].start, at(12));
}

TEST_F(Resume, a_segment_in_which_the_timeline_changed_reaches_as_far_as_its_youngest_file) {
  segments(1, 3, 9);
  slice(1, 10, 0, 0x1000);
  const auto end = [&] { return WalCoverage(archive_, size).contiguous_end(second_, at(3)); };
  EXPECT_EQ(end(), at(10, 0x1000));
  slice(2, 10, 0, 0x1500);
  EXPECT_EQ(end(), at(10, 0x1500));
  segments(1, 10, 12);  // the old server goes on by itself
  EXPECT_EQ(end(), at(10, 0x1500));
  EXPECT_FALSE(WalCoverage(archive_, size).has_segment_behind(second_, end()));
  segments(2, 11, 11);
  EXPECT_TRUE(WalCoverage(archive_, size).has_segment_behind(second_, end()));
  segments(2, 10, 10);
  EXPECT_EQ(end(), at(12));
}

TEST_F(Resume, INV_7_a_hole_between_slices_is_a_hole) {
  segments(1, 3, 5);
  slice(1, 6, 0, 100);
  slice(1, 6, 200, 300);
  const WalCoverage coverage(archive_, size);
  EXPECT_EQ(coverage.contiguous_end(first_, at(3)), at(6, 100));
  EXPECT_TRUE(coverage.has_segment_behind(first_, at(6, 100)));
  WalCoverage forgetful = coverage;
  forgetful.forget({Timeline{1}, 6});
  EXPECT_EQ(forgetful.contiguous_end(first_, at(3)), at(6));
}

}  // namespace
}  // namespace holdfast::operations
