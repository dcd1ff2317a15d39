#include "postgres/tablespaces_in_place.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "postgres/wal_builder.h"

namespace holdfast::postgres {
namespace {

constexpr std::string_view location = "/srv/production/space";

base::Bytes creation(std::uint32_t oid, std::string_view where) {
  base::ByteWriter writer;
  writer.u8(255);
  writer.u8(static_cast<std::uint8_t>(4 + where.size() + 1));
  writer.u32(oid);
  writer.raw(base::view(where));
  writer.u8(0);
  return writer.take();
}

/// What the neighbours of segment `index` are.
Neighbours around(const std::vector<base::Bytes>& segments, std::size_t index) {
  const auto at = [&segments](std::size_t i) {
    return i < segments.size() ? std::optional(segments[i]) : std::nullopt;
  };
  return {[=] { return at(index - 1); }, [=] { return at(index + 1); }};
}

/// The locations of tablespaces in segments that are read one after the other, and how many records
/// those are read to.
std::pair<std::vector<std::string>, std::size_t> read(const std::vector<base::Bytes>& segments) {
  std::vector<std::string> locations;
  std::size_t records = 0;
  WalReader reader(WalBuilder::origin, WalBuilder::segment_size);
  for (const base::Bytes& each : segments) {
    reader.feed(each, [&](const WalRecord& record) {
      ++records;
      if (const auto found = tablespace_record_of(record)) locations.push_back(found->location);
      return true;
    });
  }
  return {locations, records};
}

TEST(TablespacesInPlace, takes_the_location_out_and_leaves_all_else_as_it_is) {
  WalBuilder builder;
  builder.append(100, 7);
  builder.append(5, 0x00, 7, creation(16390, location));
  builder.append(100, 7);
  builder.append(5, 0x00, 7, creation(16391, ""));
  builder.append(5, 0x10, 7, creation(16390, location));
  builder.append(20000, 7);
  std::vector<base::Bytes> segments = builder.segments();
  ASSERT_EQ(segments.size(), 1U);
  const base::Bytes before = segments[0];
  const auto changed = put_tablespaces_in_place(segments[0], {});
  ASSERT_EQ(changed.size(), 1U);
  EXPECT_EQ(changed[0].oid, 16390U);
  EXPECT_EQ(changed[0].location, location);
  const auto [locations, records] = read(segments);
  EXPECT_EQ(records, 6U) << "every CRC is right";
  EXPECT_EQ(locations, (std::vector<std::string>{"", "", ""}));
  EXPECT_TRUE(put_tablespaces_in_place(segments[0], {}).empty()) << "once is enough";
}

TEST(TablespacesInPlace, knows_a_record_wherever_the_segment_cuts_it) {
  const base::Bytes body = creation(16390, location);
  const std::size_t length = 24 + body.size();
  for (std::size_t there = 8; there < length + 16; there += 8) {
    WalBuilder builder;
    builder.append(300, 1);
    // So many bytes of the record stand in the first segment.
    const std::size_t end = WalBuilder::segment_size.bytes - wal_page_size;
    while (builder.position().value - WalBuilder::origin.value < end - 2 * wal_page_size) {
      builder.append(4000, 2);
    }
    builder.fill_page();
    while (builder.position().value - WalBuilder::origin.value < end) builder.fill_page();
    builder.append(wal_page_size - wal_short_header_size - 24 - there, 3);
    const Lsn start = builder.append(5, 0x00, 7, body);
    builder.append(500, 4);
    std::vector<base::Bytes> segments = builder.segments();
    ASSERT_EQ(segments.size(), 2U);
    ASSERT_EQ(start.value, WalBuilder::origin.value + WalBuilder::segment_size.bytes - there)
        << there;
    const std::size_t records = read(segments).second;
    const std::vector<base::Bytes> stored = segments;
    for (std::size_t i = 0; i < 2; ++i) put_tablespaces_in_place(segments[i], around(stored, i));
    const auto [locations, left] = read(segments);
    EXPECT_EQ(left, records) << there;
    EXPECT_EQ(locations, std::vector<std::string>{""}) << there;
  }
}

TEST(TablespacesInPlace, ends_WAL_before_a_record_whose_rest_is_not_there) {
  WalBuilder builder;
  while (builder.position().value - WalBuilder::origin.value <
         WalBuilder::segment_size.bytes - wal_page_size) {
    builder.fill_page();
  }
  builder.append(wal_page_size - wal_short_header_size - 24 - 40, 3);
  builder.append(5, 0x00, 7, creation(16390, location));
  std::vector<base::Bytes> segments = builder.segments();
  ASSERT_EQ(segments.size(), 2U);
  const auto none = [] { return std::optional<base::Bytes>(); };
  const std::size_t all = read(segments).second;
  base::Bytes garbage(segments[1].size());
  const auto wrong = [&] { return std::optional(garbage); };
  EXPECT_THROW(put_tablespaces_in_place(segments[0], {none, wrong}), base::Error);
  EXPECT_TRUE(put_tablespaces_in_place(segments[0], {none, none}).empty());
  // Nor may it go on when the rest comes later.
  const auto [locations, records] = read(segments);
  EXPECT_TRUE(locations.empty());
  EXPECT_EQ(records, all - 1);
  // But replay that has no beginning of a record does not replay it.
  EXPECT_TRUE(put_tablespaces_in_place(segments[1], {none, none}).empty());
}

TEST(TablespacesInPlace, goes_on_behind_what_is_no_wal) {
  WalBuilder builder;
  builder.append(100, 7);
  builder.fill_page();
  builder.append(5, 0x00, 7, creation(16390, location));
  std::vector<base::Bytes> segments = builder.segments();
  segments[0][wal_long_header_size + 30] ^= 0xFF;  // the first record is broken
  EXPECT_EQ(put_tablespaces_in_place(segments[0], {}).size(), 1U);
}

}  // namespace
}  // namespace holdfast::postgres
