#include "postgres/wal_segment.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "postgres/wal_page.h"

namespace holdfast::postgres {
namespace {

constexpr SegmentSize size{1 << 20};
constexpr SystemId our_system{7711283289278754353};
constexpr std::size_t pages = size.bytes / wal_page_size;

/// A segment as PostgreSQL 15 would write it, with content that does not matter here.
base::Bytes segment_file(Segment segment, SegmentSize of_size = size) {
  base::Bytes bytes(of_size.bytes, 0x5a);
  for (std::size_t at = 0; at < bytes.size(); at += wal_page_size) {
    std::uint8_t* page = bytes.data() + at;
    base::store<std::uint16_t>(page, 0xD110);
    base::store<std::uint16_t>(page + 2, at == 0 ? 2 : 0);
    base::store<std::uint32_t>(page + 4, segment.timeline.value);
    base::store<std::uint64_t>(page + 8, start_of(segment, of_size).value + at);
    base::store<std::uint32_t>(page + 16, 0);
  }
  base::store<std::uint64_t>(bytes.data() + 24, our_system.value);
  base::store<std::uint32_t>(bytes.data() + 32, static_cast<std::uint32_t>(of_size.bytes));
  base::store<std::uint32_t>(bytes.data() + 36, 8192);
  return bytes;
}

const Segment ours{{10}, 0x1234};
WalFileName name_of(Segment segment, SegmentSize of_size = size) {
  return parse_wal_file_name(file_name(segment, of_size)).value();
}

base::Code code_of(base::View bytes, const WalFileName& name = name_of(ours),
                   std::optional<SystemId> expected = our_system) {
  try {
    check_segment(bytes, name, expected);
  } catch (const base::Error& error) {
    return error.code();
  }
  return base::Code::internal;
}
constexpr base::Code nothing_wrong = base::Code::internal;

template <typename T>
base::Bytes changed(std::size_t at, T value) {
  base::Bytes bytes = segment_file(ours);
  base::store<T>(bytes.data() + at, value);
  return bytes;
}

TEST(WalSegment, says_what_it_is) {
  const SegmentHeader header = check_segment(segment_file(ours), name_of(ours), our_system);
  EXPECT_EQ(header.magic, 0xD110);
  EXPECT_EQ(header.timeline.value, 10U);
  EXPECT_EQ(header.address.value, 0x1234ULL << 20);
  EXPECT_EQ(header.system_id, our_system);
  EXPECT_EQ(header.size, size);
  EXPECT_EQ(major_version_of_magic(header.magic), 15);
}

TEST(WalSegment, has_a_version_by_its_magic_number) {
  const std::pair<std::uint16_t, int> all[] = {{0xD106, 13}, {0xD10D, 14}, {0xD110, 15},
                                               {0xD113, 16}, {0xD116, 17}, {0xD118, 18}};
  for (const auto& [magic, major] : all) {
    EXPECT_EQ(major_version_of_magic(magic), major);
    EXPECT_FALSE(major_version_of_magic(static_cast<std::uint16_t>(magic + 1)));
  }
  EXPECT_FALSE(major_version_of_magic(0));
}

// B23, WP7: a file cut short, and one of another size, are no segments of this cluster.
TEST(WalSegment, that_was_cut_or_has_another_size_is_refused_B23_WP7) {
  const base::Bytes whole = segment_file(ours);
  for (const std::size_t length : {0UL, 1UL, 39UL, 8192UL, size.bytes / 2, size.bytes - 1}) {
    EXPECT_EQ(code_of(base::View(whole).first(length)), base::Code::corrupt) << length;
  }
  base::Bytes longer = whole;
  longer.resize(2 * size.bytes);
  EXPECT_EQ(code_of(longer), base::Code::corrupt);
  const SegmentSize big{64 << 20};
  EXPECT_EQ(code_of(segment_file(ours, big), name_of(ours, size)), base::Code::corrupt);
  const Segment in_big{{10}, 0x48};
  EXPECT_EQ(code_of(segment_file(in_big, big), name_of(in_big, big)), nothing_wrong);
}

// B25, WP1: segments of another system at free numbers do not collide with ours, and are refused.
TEST(WalSegment, of_another_system_is_foreign_B25_WP1) {
  EXPECT_EQ(code_of(segment_file(ours), name_of(ours), SystemId{1}), base::Code::foreign);
  EXPECT_EQ(code_of(segment_file(ours), name_of(ours), std::nullopt), nothing_wrong);
}

TEST(WalSegment, under_a_wrong_name_is_refused) {
  EXPECT_EQ(code_of(segment_file(ours), name_of({{10}, 0x1235})), base::Code::corrupt);
  EXPECT_EQ(code_of(segment_file(ours), name_of({{9}, 0x1234})), base::Code::corrupt);
  EXPECT_EQ(code_of(segment_file(ours), *parse_wal_file_name("0000000A.history")),
            base::Code::corrupt);
  EXPECT_EQ(code_of(segment_file({{0}, 0x1234})), base::Code::corrupt);
}

// WP8: encrypted WAL, or anything else that is random, must not pass by chance.
TEST(WalSegment, whose_first_page_is_not_one_is_refused_WP8) {
  EXPECT_EQ(code_of(base::Bytes(size.bytes)), base::Code::corrupt);
  EXPECT_EQ(code_of(base::Bytes(size.bytes, 0xa7)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint16_t>(0, 0xD111)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint16_t>(2, 0)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint16_t>(2, 0x12)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint64_t>(8, 8192)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint32_t>(32, 3 << 20)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint32_t>(32, 0)), base::Code::corrupt);
  EXPECT_EQ(code_of(changed<std::uint32_t>(36, 4096)), base::Code::corrupt);
}

TEST(WalSegment, with_one_damaged_page_header_is_refused) {
  for (const std::size_t page : {std::size_t{1}, std::size_t{17}, pages - 1}) {
    const std::size_t at = page * wal_page_size;
    EXPECT_EQ(code_of(changed<std::uint16_t>(at, 0xD10D)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint16_t>(at, 0)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint16_t>(at + 2, 2)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint16_t>(at + 2, 0x80)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint32_t>(at + 4, 11)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint32_t>(at + 4, 9)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint64_t>(at + 8, ~0ULL << 13)), base::Code::corrupt) << page;
    EXPECT_EQ(code_of(changed<std::uint8_t>(at + 9, 0x77)), base::Code::corrupt) << page;
  }
}

TEST(WalSegment, may_begin_on_the_timeline_that_was_left_in_it) {
  base::Bytes bytes = segment_file(ours);
  for (std::size_t page = 0; page < 5; ++page) {
    base::store<std::uint32_t>(bytes.data() + page * wal_page_size + 4, 8);
  }
  EXPECT_EQ(check_segment(bytes, name_of(ours), our_system).timeline.value, 8U);
}

TEST(WalSegment, may_end_in_zeros_or_in_what_the_file_held_before) {
  base::Bytes bytes = segment_file(ours);
  const base::Bytes older = segment_file({{9}, 0x1200});
  const auto middle = static_cast<std::ptrdiff_t>(7 * wal_page_size);
  std::copy(older.begin() + middle, older.end(), bytes.begin() + middle);
  EXPECT_EQ(code_of(bytes), nothing_wrong);
  std::fill(bytes.begin() + middle, bytes.end(), std::uint8_t{0});
  EXPECT_EQ(code_of(bytes), nothing_wrong);
  bytes[static_cast<std::size_t>(middle) + 100] = 1;
  EXPECT_EQ(code_of(bytes), base::Code::corrupt);
}

TEST(WalSegment, that_was_partial_is_checked_alike) {
  const auto partial = parse_wal_file_name(file_name(ours, size) + ".partial");
  EXPECT_EQ(code_of(segment_file(ours), *partial), nothing_wrong);
  EXPECT_EQ(code_of(base::View(segment_file(ours)).first(8192), *partial), base::Code::corrupt);
}

}  // namespace
}  // namespace holdfast::postgres
