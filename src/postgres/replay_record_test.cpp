#include "postgres/replay_record.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::postgres {
namespace {

/// The body of a record with main data only, as a server writes it.
base::Bytes body_of(const base::Bytes& data, bool has_origin = false) {
  base::ByteWriter writer;
  if (has_origin) {
    writer.u8(253);
    writer.u16(7);
  }
  if (data.size() < 256) {
    writer.u8(255);
    writer.u8(static_cast<std::uint8_t>(data.size()));
  } else {
    writer.u8(254);
    writer.u32(static_cast<std::uint32_t>(data.size()));
  }
  writer.raw(data);
  return writer.take();
}

base::Bytes creation(std::uint32_t oid, std::string_view location) {
  base::ByteWriter writer;
  writer.u32(oid);
  writer.raw(base::view(location));
  writer.u8(0);
  return writer.take();
}

WalRecord record_of(unsigned manager, unsigned info, base::View body) {
  WalRecord record;
  record.start = {4096};
  record.end = {5000};
  record.resource_manager = static_cast<std::uint8_t>(manager);
  record.info = static_cast<std::uint8_t>(info);
  record.major = 15;
  record.body = body;
  return record;
}

TEST(ReplayRecord, tells_tablespaces_that_are_created_and_dropped) {
  const std::string long_name = "/" + std::string(1000, 'x');
  for (const std::string& location : {std::string("/srv/space"), std::string(), long_name}) {
    for (const bool has_origin : {false, true}) {
      const base::Bytes body = body_of(creation(16390, location), has_origin);
      const auto made = tablespace_record_of(record_of(5, 0x00, body));
      ASSERT_TRUE(made);
      EXPECT_TRUE(made->creates);
      EXPECT_EQ(made->oid, 16390U);
      EXPECT_EQ(made->location, location);
      EXPECT_EQ(made->start, Lsn{4096});
      EXPECT_LE(24 + body.size(), longest_tablespace_record);
    }
  }
  const base::Bytes body = body_of(base::copy(base::View(creation(16391, "")).first(4)));
  const auto dropped = tablespace_record_of(record_of(5, 0x10, body));
  ASSERT_TRUE(dropped);
  EXPECT_FALSE(dropped->creates);
  EXPECT_EQ(dropped->oid, 16391U);
}

TEST(ReplayRecord, refuses_what_does_not_parse_and_passes_over_other_kinds) {
  const base::Bytes body = body_of(creation(16390, "/srv/space"));
  EXPECT_FALSE(tablespace_record_of(record_of(4, 0x00, body)));
  EXPECT_FALSE(tablespace_record_of(record_of(5, 0x20, body)));
  for (std::size_t size = 0; size < body.size(); ++size) {
    const base::Bytes cut = base::copy(base::View(body).first(size));  // exact: reads are seen
    EXPECT_EQ(base::testing::code_of([&] { tablespace_record_of(record_of(5, 0x00, cut)); }),
              base::Code::corrupt);
  }
}

TEST(ReplayRecord, tells_the_limits_of_the_server_that_wrote_it) {
  base::ByteWriter writer;
  for (const std::uint32_t each : {200U, 9U, 11U, 3U, 65U, 1U}) writer.u32(each);
  writer.u16(0);
  const base::Bytes body = body_of(writer.take());
  const auto limits = limits_of(record_of(0, 0x60, body));
  ASSERT_TRUE(limits);
  EXPECT_EQ(*limits, (ServerLimits{200, 9, 11, 3, 65}));
  EXPECT_FALSE(limits_of(record_of(0, 0x70, body)));
  ServerLimits highest{100, 10, 10, 0, 64};
  highest.raise_to(*limits);
  EXPECT_EQ(highest, (ServerLimits{200, 10, 11, 3, 65}));
}

}  // namespace
}  // namespace holdfast::postgres
