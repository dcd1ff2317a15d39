#include "postgres/row_change.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::postgres {
namespace {

using Kind = RowChange::Kind;

/// A record about one block of relation 1663/5/16384 with this main data.
base::Bytes body(const base::Bytes& data) {
  base::ByteWriter writer;
  writer.u8(0);
  writer.u8(0);
  writer.u16(0);
  for (const std::uint32_t number : {1663U, 5U, 16384U, 17U}) writer.u32(number);
  writer.u8(255);
  writer.u8(static_cast<std::uint8_t>(data.size()));
  writer.raw(data);
  return writer.take();
}

WalRecord record(unsigned manager, unsigned info, const base::Bytes& bytes) {
  WalRecord record;
  record.resource_manager = static_cast<std::uint8_t>(manager);
  record.info = static_cast<std::uint8_t>(info);
  record.major = 15;
  record.body = bytes;
  return record;
}

std::optional<RowChange> change(unsigned manager, unsigned info, const base::Bytes& data) {
  const base::Bytes bytes = body(data);
  return row_change_of(record(manager, info, bytes));
}

TEST(RowChange, is_one_row_of_the_first_block_and_of_a_multi_insert_as_many_as_it_says) {
  const base::Bytes data{9, 0, 3, 1, 7, 0, 0, 0};
  EXPECT_EQ(change(10, 0x00, data)->kind, Kind::inserted);
  EXPECT_EQ(change(10, 0x80, data)->kind, Kind::inserted);  // on a new page
  EXPECT_EQ(change(10, 0x10, data)->kind, Kind::deleted);
  EXPECT_EQ(change(10, 0x10, data)->offset, 7);
  EXPECT_EQ(change(10, 0x20, data)->kind, Kind::updated);
  EXPECT_EQ(change(10, 0x40, data)->kind, Kind::updated);
  EXPECT_EQ(change(10, 0x70, data)->kind, Kind::updated_in_place);
  EXPECT_EQ(change(10, 0x70, data)->offset, 9);
  EXPECT_EQ(change(9, 0x50, data)->rows, 259U);
  EXPECT_EQ(change(9, 0xD0, data)->rows, 259U);
  EXPECT_EQ(change(10, 0x00, data)->rows, 1U);
  EXPECT_EQ(change(10, 0x00, data)->relation, (RelationId{1663, 5, 16384}));
  EXPECT_EQ(change(10, 0x00, data)->block, 17U);
}

TEST(RowChange, is_none_of_locks_pruning_indexes_and_what_is_too_short) {
  const base::Bytes data(8);
  for (const unsigned info : {0x30U, 0x50U, 0x60U}) EXPECT_FALSE(change(10, info, data)) << info;
  for (const unsigned info : {0x00U, 0x10U, 0x20U, 0x30U, 0x40U, 0x60U}) {
    EXPECT_FALSE(change(9, info, data)) << info;
  }
  EXPECT_FALSE(change(11, 0x00, data));
  EXPECT_FALSE(change(10, 0x10, base::Bytes(5)));
  EXPECT_FALSE(change(9, 0x50, base::Bytes(3)));
}

base::Bytes truncation(std::uint32_t count) {
  base::ByteWriter data;
  data.u8(255);
  data.u8(20);
  for (const std::uint32_t number : {5U, count, 0U, 16384U, 16390U}) data.u32(number);
  return data.take();
}

TEST(Truncation, lists_relations_and_believes_no_count) {
  const base::Bytes bytes = truncation(2);
  const auto found = truncation_of(record(10, 0x30, bytes));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->database, 5U);
  EXPECT_EQ(found->oids, (std::vector<std::uint32_t>{16384, 16390}));
  const base::Bytes too_many = truncation(3);
  EXPECT_FALSE(truncation_of(record(10, 0x30, too_many)));
  EXPECT_FALSE(truncation_of(record(10, 0x40, bytes)));
}

TEST(RowChange, of_any_bytes_is_read_within_bounds) {
  const std::vector<base::Bytes> originals{body(base::Bytes(14, 2)), truncation(2)};
  for (std::size_t seed = 0; seed < base::testing::fuzz_iterations(20'000); ++seed) {
    base::testing::Random random(seed);
    const base::Bytes bytes = base::testing::mutated(originals[random.below(2)], random);
    const WalRecord made = record(static_cast<unsigned>(9 + random.below(2)),
                                  static_cast<unsigned>(random.below(256)), bytes);
    SCOPED_TRACE(seed);
    EXPECT_NO_THROW(row_change_of(made));
    EXPECT_NO_THROW(truncation_of(made));
  }
}

}  // namespace
}  // namespace holdfast::postgres
