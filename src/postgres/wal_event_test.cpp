#include <gtest/gtest.h>

#include "base/error.h"
#include "postgres/wal_reader.h"

namespace holdfast::postgres {
namespace {

constexpr std::int64_t epoch_2000 = 946'684'800'000'000;
constexpr std::uint64_t some_time = 848'822'400'123'456;  // since 2000
const base::Timestamp as_time{
    base::Microseconds(epoch_2000 + static_cast<std::int64_t>(some_time))};

constexpr std::uint8_t commit = 0x00;
constexpr std::uint8_t abort_ = 0x20;
constexpr std::uint8_t commit_prepared = 0x30;
constexpr std::uint8_t abort_prepared = 0x40;
constexpr std::uint8_t with_parts = 0x80;

/// The body of a record whose main data is `data`, behind the headers that PostgreSQL may put
/// first.
base::Bytes body_of(const base::Bytes& data, bool with_origin = false) {
  base::ByteWriter writer;
  if (with_origin) {
    writer.u8(253);
    writer.u16(1);
    writer.u8(252);
    writer.u32(99);
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

std::optional<WalEvent> event(std::uint8_t manager, std::uint8_t info, const base::Bytes& body,
                              int major = 15) {
  WalRecord record;
  record.start = {0x1000028};
  record.end = {0x1000060};
  record.transaction = 700;
  record.resource_manager = manager;
  record.info = info;
  record.major = major;
  record.body = body;
  return event_of(record);
}

bool is_corrupt(std::uint8_t manager, std::uint8_t info, const base::Bytes& body) {
  try {
    event(manager, info, body);
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

base::Bytes time_only() {
  base::ByteWriter writer;
  writer.u64(some_time);
  return writer.take();
}

/// A transaction record with every part that may come before the prepared transaction's number.
base::Bytes all_parts(std::size_t statistics_size) {
  base::ByteWriter writer;
  writer.u64(some_time);
  writer.u32(1 | 2 | 4 | 8 | 16 | 128 | 256);
  writer.raw(base::Bytes(8, 1));  // database
  writer.u32(2);
  writer.u32(701);
  writer.u32(702);
  writer.u32(3);
  writer.raw(base::Bytes(3 * 12, 2));  // relations
  writer.u32(2);
  writer.raw(base::Bytes(2 * statistics_size, 3));
  writer.u32(20);
  writer.raw(base::Bytes(20 * 16, 4));  // invalidations
  writer.u32(650);
  writer.raw(base::view("gid"));
  writer.u8(0);
  return writer.take();
}

TEST(WalEvent, of_a_commit_has_its_time_and_transaction) {
  for (const bool with_origin : {false, true}) {
    const auto found = event(1, commit, body_of(time_only(), with_origin));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, WalEvent::Kind::commit);
    EXPECT_EQ(found->time, as_time);
    EXPECT_EQ(found->transaction, 700U);
    EXPECT_EQ(found->start.value, 0x1000028U);
    EXPECT_EQ(found->end.value, 0x1000060U);
    EXPECT_TRUE(found->subtransactions.empty());
  }
  EXPECT_EQ(base::to_iso(as_time), "2026-11-24T08:00:00.123456Z");
}

TEST(WalEvent, of_an_abort_is_told_from_a_commit) {
  EXPECT_EQ(event(1, abort_, body_of(time_only()))->kind, WalEvent::Kind::abort);
}

TEST(WalEvent, of_a_commit_lists_subtransactions) {
  base::ByteWriter writer;
  writer.u64(some_time);
  writer.u32(2 | 32);
  writer.u32(100);
  for (std::uint32_t i = 0; i < 100; ++i) writer.u32(701 + i);
  writer.raw(base::Bytes(16));  // replication origin
  const auto found = event(1, commit | with_parts, body_of(writer.bytes()));
  ASSERT_EQ(found->subtransactions.size(), 100U);
  EXPECT_EQ(found->subtransactions[99], 800U);
  EXPECT_EQ(found->transaction, 700U);
}

TEST(WalEvent, of_a_prepared_transaction_names_that_transaction_in_every_version) {
  for (const int major : {15, 17, 18}) {
    const base::Bytes body = body_of(all_parts(major >= 18 ? 16 : 12));
    const auto committed = event(1, commit_prepared | with_parts, body, major);
    ASSERT_TRUE(committed);
    EXPECT_EQ(committed->kind, WalEvent::Kind::commit);
    EXPECT_EQ(committed->transaction, 650U) << major;
    EXPECT_EQ(committed->subtransactions, (std::vector<std::uint32_t>{701, 702}));
    const auto aborted = event(1, abort_prepared | with_parts, body, major);
    EXPECT_EQ(aborted->kind, WalEvent::Kind::abort);
    EXPECT_EQ(aborted->transaction, 650U);
  }
}

TEST(WalEvent, of_a_restore_point_has_its_name) {
  for (const std::string& name : {std::string("before upgrade"), std::string(64, 'n')}) {
    base::ByteWriter writer;
    writer.u64(some_time);
    writer.raw(base::view(name));
    writer.raw(base::Bytes(64 - name.size()));
    const auto found = event(0, 0x70, body_of(writer.bytes()));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, WalEvent::Kind::restore_point);
    EXPECT_EQ(found->name, name);
    EXPECT_EQ(found->time, as_time);
  }
}

TEST(WalEvent, is_none_for_other_records) {
  EXPECT_FALSE(event(0, 0x40, {}));
  EXPECT_FALSE(event(0, 0x10, body_of(time_only())));
  EXPECT_FALSE(event(1, 0x10, body_of(time_only())));
  EXPECT_FALSE(event(1, 0x50, body_of(time_only())));
  EXPECT_FALSE(event(10, 0x00, body_of(time_only())));
  EXPECT_FALSE(event(200, 0x70, body_of(time_only())));
}

TEST(WalEvent, is_refused_when_cut_anywhere) {
  const base::Bytes whole = body_of(all_parts(12));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    base::Bytes cut = whole;
    cut.resize(length);
    EXPECT_TRUE(is_corrupt(1, commit_prepared | with_parts, cut)) << length;
  }
  EXPECT_TRUE(is_corrupt(0, 0x70, body_of(time_only())));
}

TEST(WalEvent, believes_no_count_and_no_time_that_cannot_be) {
  base::ByteWriter writer;
  writer.u64(some_time);
  writer.u32(2);
  writer.u32(0xffffffff);
  EXPECT_TRUE(is_corrupt(1, commit | with_parts, body_of(writer.bytes())));
  base::ByteWriter late;
  late.u64(0x7fffffffffffffff);
  EXPECT_TRUE(is_corrupt(1, commit, body_of(late.bytes())));
  EXPECT_TRUE(is_corrupt(1, commit, base::Bytes{7, 0, 0}));
}

}  // namespace
}  // namespace holdfast::postgres
