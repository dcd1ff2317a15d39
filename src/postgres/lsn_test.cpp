#include "postgres/lsn.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

constexpr SegmentSize mib(std::uint64_t count) {
  return {count << 20};
}

TEST(Lsn, is_printed_as_postgres_prints_it) {
  EXPECT_EQ(to_string(Lsn{0x16'B374D848}), "16/B374D848");
  EXPECT_EQ(to_string(Lsn{0x28}), "0/28");
  EXPECT_EQ(to_string(Lsn{~std::uint64_t{0}}), "FFFFFFFF/FFFFFFFF");
}

TEST(Lsn, reads_back_what_it_printed) {
  for (const std::uint64_t value : {0x0ULL, 0x28ULL, 0x1'00000000ULL, 0xABCDEF01'23456789ULL}) {
    EXPECT_EQ(parse_lsn(to_string(Lsn{value})), Lsn{value});
  }
  EXPECT_EQ(parse_lsn("16/0000b374"), (Lsn{0x16'0000B374}));
}

TEST(Lsn, refuses_what_is_not_exactly_one) {
  for (const char* text : {"", "/", "1", "1/", "/1", "1/2/3", " 1/2", "1/2 ", "+1/2", "0x1/2",
                           "100000000/0", "0/100000000", "G/1", "1/-1", "1\\2"}) {
    EXPECT_FALSE(parse_lsn(text)) << text;
  }
}

TEST(SegmentSize, is_a_power_of_two_between_1_mib_and_1_gib) {
  for (std::uint64_t count = 1; count <= 1024; count *= 2) EXPECT_TRUE(is_valid(mib(count)));
  for (const std::uint64_t bytes : {0ULL, 1ULL, 512ULL << 10, 3ULL << 20, 2ULL << 30, 1ULL << 40}) {
    EXPECT_FALSE(is_valid(SegmentSize{bytes})) << bytes;
  }
}

// B29: the segment size is the cluster's own; 16 MiB is only what most have.
TEST(Segment, has_the_name_that_its_cluster_gives_it_B29) {
  const Lsn lsn{0x16'B374D848};
  EXPECT_EQ(file_name(segment_at({1}, lsn, mib(16)), mib(16)), "0000000100000016000000B3");
  EXPECT_EQ(file_name(segment_at({1}, lsn, mib(1)), mib(1)), "000000010000001600000B37");
  EXPECT_EQ(file_name(segment_at({1}, lsn, mib(64)), mib(64)), "00000001000000160000002C");
  EXPECT_EQ(file_name(segment_at({1}, lsn, mib(1024)), mib(1024)), "000000010000001600000002");
}

TEST(Segment, holds_the_bytes_from_its_start_to_before_its_end) {
  for (const std::uint64_t count : {1, 16, 64, 1024}) {
    const SegmentSize size = mib(count);
    const Lsn lsn{0x3'FFFFFFFF};
    const Segment segment = segment_at({7}, lsn, size);
    EXPECT_LE(start_of(segment, size), lsn);
    EXPECT_GT(end_of(segment, size), lsn);
    EXPECT_EQ(segment_at({7}, end_of(segment, size), size).number, segment.number + 1);
    EXPECT_EQ(parse_wal_file_name(file_name(segment, size))->segment(size), segment);
  }
}

// B28, WF15: timelines are hexadecimal in names; 10 is 0A and 00000010 is 16.
TEST(WalFileName, writes_timelines_in_hexadecimal_B28_WF15) {
  const std::pair<std::uint32_t, const char*> cases[] = {{9, "00000009.history"},
                                                         {10, "0000000A.history"},
                                                         {16, "00000010.history"},
                                                         {255, "000000FF.history"}};
  for (const auto& [number, name] : cases) {
    EXPECT_EQ(history_file_name({number}), name);
    const auto parsed = parse_wal_file_name(name);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->kind, WalFileName::Kind::history);
    EXPECT_EQ(parsed->timeline.value, number);
    EXPECT_FALSE(parsed->segment(mib(16)));
    const Segment segment{{number}, 5};
    EXPECT_EQ(parse_wal_file_name(file_name(segment, mib(16)))->timeline.value, number);
  }
}

TEST(WalFileName, tells_segments_partial_and_backup_files_apart) {
  const auto kind = [](std::string_view name) { return parse_wal_file_name(name)->kind; };
  EXPECT_EQ(kind("0000000100000016000000B3"), WalFileName::Kind::segment);
  EXPECT_EQ(kind("0000000100000016000000B3.partial"), WalFileName::Kind::partial);
  EXPECT_EQ(kind("0000000100000016000000B3.00000028.backup"), WalFileName::Kind::backup);
}

// B26: a name that merely begins like a segment's is another file.
TEST(WalFileName, knows_only_whole_names_B26) {
  for (const char* name :
       {"", "00000001", "00000001.histor", "00000001.history.tmp", "0000000100000016000000B",
        "0000000100000016000000B3.", "0000000100000016000000B3.partia",
        "0000000100000016000000B3.partial.gz", "0000000100000016000000B3.gz",
        "0000000100000016000000B3.00000028.backup.gz", "0000000100000016000000B3.0000028.backup",
        "0000000100000016000000B3x00000028.backup", "0000000100000016000000b3",
        "0000000100000016000000B34", "000000g1.history", "xlogtemp.123", "archive_status"}) {
    EXPECT_FALSE(parse_wal_file_name(name)) << name;
  }
}

TEST(WalFileName, has_no_segment_where_the_last_digits_exceed_the_size) {
  const auto name = parse_wal_file_name("000000010000000000000100");
  ASSERT_TRUE(name);
  EXPECT_FALSE(name->segment(mib(16)));
  EXPECT_EQ(name->segment(mib(1)), (Segment{{1}, 0x100}));
  EXPECT_FALSE(name->segment(SegmentSize{3}));
}

}  // namespace
}  // namespace holdfast::postgres
