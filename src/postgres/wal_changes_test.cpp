#include "postgres/wal_changes.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::postgres {
namespace {

using Kind = FileChange::Kind;

constexpr RelationId table{1663, 5, 16384};
constexpr RelationId other{1663, 5, 16390};

base::Bytes numbers(const std::vector<std::uint32_t>& values) {
  base::ByteWriter writer;
  for (const std::uint32_t value : values) writer.u32(value);
  return writer.take();
}

/// Makes the body of a record, as a server does.
class Body {
 public:
  /// `image_info`: what bimg_info says of an image of 100 bytes; 0 is none.
  Body& block(unsigned id, const RelationId& relation, unsigned fork, std::uint32_t block,
              unsigned image_info = 0, bool has_hole_length = false, unsigned flags = 0,
              std::size_t data_size = 0) {
    headers_.u8(static_cast<std::uint8_t>(id));
    if (image_info != 0) flags |= 0x10;
    if (data_size > 0) flags |= 0x20;
    headers_.u8(static_cast<std::uint8_t>(fork | flags));
    headers_.u16(static_cast<std::uint16_t>(data_size));
    if (image_info != 0) {
      headers_.u16(100);
      headers_.u16(40);
      headers_.u8(static_cast<std::uint8_t>(image_info));
      if (has_hole_length) headers_.u16(900);
      data_.raw(base::Bytes(100, 0xFF));
    }
    if ((flags & 0x80) == 0) {
      headers_.raw(numbers({relation.tablespace, relation.database, relation.relation}));
    }
    headers_.u32(block);
    data_.raw(base::Bytes(data_size, 0xFF));
    return *this;
  }
  Body& origin() {
    headers_.u8(253);
    headers_.u16(7);
    headers_.u8(252);
    headers_.u32(7);
    return *this;
  }
  Body& data(const base::Bytes& main) {
    if (main.size() < 256) {
      headers_.u8(255);
      headers_.u8(static_cast<std::uint8_t>(main.size()));
    } else {
      headers_.u8(254);
      headers_.u32(static_cast<std::uint32_t>(main.size()));
    }
    data_.raw(main);
    return *this;
  }
  base::Bytes bytes() const {
    base::Bytes all = headers_.bytes();
    all.insert(all.end(), data_.bytes().begin(), data_.bytes().end());
    return all;
  }

 private:
  base::ByteWriter headers_;
  base::ByteWriter data_;
};

base::Bytes only_data(const std::vector<std::uint32_t>& values) {
  return Body().data(numbers(values)).bytes();
}

/// The changes of a record; nullopt if it is refused.
std::optional<std::vector<FileChange>> changes(unsigned manager, unsigned info,
                                               const base::Bytes& body, int major = 15) {
  // At the very end of what was allocated, so that a byte too far is seen.
  const base::Bytes exact(body);
  WalRecord record;
  record.resource_manager = static_cast<std::uint8_t>(manager);
  record.info = static_cast<std::uint8_t>(info);
  record.major = major;
  record.body = exact;
  std::vector<FileChange> found;
  const bool is_told =
      changes_of(record, [&](const FileChange& change) { found.push_back(change); });
  if (!is_told) return std::nullopt;
  return found;
}

TEST(WalChanges, are_the_blocks_that_a_record_refers_to) {
  const base::Bytes body = Body()
                               .block(0, table, 0, 17, 0, false, 0, 60)
                               .block(1, {}, 0, 18, 0, false, 0x80)
                               .block(3, other, 2, 0, 0, false, 0x40)
                               .origin()
                               .data(base::Bytes(14, 0xFF))
                               .bytes();
  const auto found = changes(10, 0x20, body);
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 3U);
  for (const FileChange& each : *found) EXPECT_EQ(each.kind, Kind::block);
  EXPECT_EQ((*found)[0].relation, table);
  EXPECT_EQ((*found)[0].block, 17U);
  EXPECT_EQ((*found)[1].relation, table);
  EXPECT_EQ((*found)[1].block, 18U);
  EXPECT_FALSE((*found)[1].will_init);
  EXPECT_EQ((*found)[2].relation, other);
  EXPECT_EQ((*found)[2].fork, 2);
  EXPECT_TRUE((*found)[2].will_init);
}

TEST(WalChanges, read_images_as_the_version_that_wrote_them_does) {
  struct Case {
    int major;
    unsigned info;
    bool has_hole_length;
    bool is_restored;
  };
  for (const Case& each : {Case{13, 1 | 4, false, true},      // with a hole
                           Case{14, 1 | 2 | 4, true, true},   // compressed
                           Case{14, 2 | 4, false, true},      // compressed, without hole
                           Case{14, 1, false, false},         // to check consistency only
                           Case{15, 1 | 2, false, true},      // with a hole
                           Case{16, 1 | 2 | 4, true, true},   // pglz
                           Case{17, 1 | 2 | 8, true, true},   // lz4
                           Case{18, 1 | 2 | 16, true, true},  // zstd
                           Case{18, 2 | 16, false, true},     // without hole
                           Case{17, 1, false, false}}) {
    const base::Bytes body =
        Body().block(0, table, 0, 3, each.info, each.has_hole_length).block(1, other, 0, 4).bytes();
    const auto found = changes(0, 0xB0, body, each.major);
    ASSERT_TRUE(found) << each.major << " " << each.info;
    ASSERT_EQ(found->size(), 2U);
    EXPECT_EQ((*found)[0].has_image, each.is_restored) << each.major << " " << each.info;
    EXPECT_EQ((*found)[1].relation, other);
    EXPECT_EQ((*found)[1].block, 4U);
    EXPECT_FALSE((*found)[1].has_image);
  }
}

TEST(WalChanges, name_new_files) {
  const auto found = changes(2, 0x11, only_data({1663, 5, 16384, 3}));
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)[0].kind, Kind::create_file);
  EXPECT_EQ((*found)[0].relation, table);
  EXPECT_EQ((*found)[0].fork, 3);
  EXPECT_FALSE(changes(2, 0x11, only_data({1663, 5, 16384, 4})));
}

TEST(WalChanges, U8_name_each_fork_that_is_truncated) {
  const auto found = changes(2, 0x21, only_data({99, 1663, 5, 16384, 7}));
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 3U);
  std::map<unsigned, std::uint32_t> first_gone;
  for (const FileChange& each : *found) {
    EXPECT_EQ(each.kind, Kind::truncate);
    EXPECT_EQ(each.relation, table);
    first_gone[each.fork] = each.block;
  }
  EXPECT_EQ(first_gone, (std::map<unsigned, std::uint32_t>{{0, 99}, {1, 0}, {2, 0}}));
  const auto heap_only = changes(2, 0x21, only_data({99, 1663, 5, 16384, 1}));
  ASSERT_EQ(heap_only->size(), 1U);
  EXPECT_EQ((*heap_only)[0].fork, 0);
  const auto map_only = changes(2, 0x21, only_data({0, 1663, 5, 16384, 2}));
  ASSERT_EQ(map_only->size(), 1U);
  EXPECT_EQ((*map_only)[0].fork, 2);
  EXPECT_FALSE(changes(2, 0x21, only_data({99, 1663, 5, 16384, 8})));
}

TEST(WalChanges, U5_tell_copied_databases_from_logged_ones_in_every_version) {
  const auto copied = only_data({16999, 1663, 1, 1663});
  const auto logged = only_data({16999, 1663});
  const auto dropped = only_data({16999, 2, 1663, 16500});
  for (int major = 13; major <= 18; ++major) {
    const auto created = changes(4, 0x01, copied, major);
    ASSERT_TRUE(created) << major;
    EXPECT_EQ((*created)[0].kind, Kind::create_database);
    EXPECT_EQ((*created)[0].relation, (RelationId{1663, 16999, 0}));
    const auto gone = changes(4, major >= 15 ? 0x21 : 0x11, dropped, major);
    ASSERT_TRUE(gone) << major;
    ASSERT_EQ(gone->size(), 2U);
    EXPECT_EQ((*gone)[0].kind, Kind::drop_database);
    EXPECT_EQ((*gone)[0].relation, (RelationId{1663, 16999, 0}));
    EXPECT_EQ((*gone)[1].relation, (RelationId{16500, 16999, 0}));
    if (major >= 15) {
      EXPECT_EQ((*changes(4, 0x10, logged, major))[0].kind, Kind::create_database_by_log);
      EXPECT_EQ((*changes(4, 0x10, logged, major))[0].relation, (RelationId{1663, 16999, 0}));
      EXPECT_FALSE(changes(4, 0x11, dropped, major));
    } else {
      EXPECT_FALSE(changes(4, 0x21, dropped, major));
      EXPECT_FALSE(changes(4, 0x11, logged, major));
    }
    EXPECT_FALSE(changes(4, 0x31, copied, major));
  }
  EXPECT_FALSE(changes(4, 0x21, only_data({16999, 0xFFFFFFFF, 1663})));
  EXPECT_FALSE(changes(4, 0x21, only_data({16999, 0x40000001, 1663})));
}

TEST(WalChanges, tell_of_tablespaces_and_of_relation_maps) {
  const auto made = changes(5, 0x00, only_data({16500, 0x006B6B2F}));
  EXPECT_EQ((*made)[0].kind, Kind::create_tablespace);
  EXPECT_EQ((*made)[0].relation.tablespace, 16500U);
  EXPECT_EQ((*changes(5, 0x10, only_data({16500})))[0].kind, Kind::drop_tablespace);
  EXPECT_FALSE(changes(5, 0x20, only_data({16500})));
  const auto map = changes(7, 0x00, only_data({5, 1663, 4, 77}));
  EXPECT_EQ((*map)[0].kind, Kind::relation_map);
  EXPECT_EQ((*map)[0].relation, (RelationId{1663, 5, 0}));
}

TEST(WalChanges, B5_tell_when_the_server_logs_less) {
  base::Bytes parameters = numbers({100, 8, 10, 0, 64, 0});
  parameters.insert(parameters.end(), {1, 0, 0, 0});
  const auto found = changes(0, 0x60, Body().data(parameters).bytes());
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)[0].kind, Kind::parameters);
  EXPECT_EQ((*found)[0].value, 0U);
  EXPECT_TRUE((*found)[0].flag);
  for (const std::uint8_t on : base::Bytes{0, 1}) {
    const auto writes = changes(0, 0x80, Body().data(base::Bytes{on}).bytes());
    EXPECT_EQ((*writes)[0].kind, Kind::full_page_writes);
    EXPECT_EQ((*writes)[0].flag, on == 1);
  }
}

base::Bytes transaction_end(unsigned parts, std::size_t statistics_size) {
  base::ByteWriter writer;
  writer.u64(848'822'400'123'456);
  writer.u32(parts);
  if ((parts & 1) != 0) writer.raw(base::Bytes(8, 1));
  if ((parts & 2) != 0) writer.raw(numbers({2, 701, 702}));
  if ((parts & 4) != 0) writer.raw(numbers({2, 1663, 5, 16384, 1663, 5, 16390}));
  if ((parts & 256) != 0) {
    writer.u32(1);
    writer.raw(base::Bytes(statistics_size));
  }
  if ((parts & 8) != 0) {
    writer.u32(1);
    writer.raw(base::Bytes(16));
  }
  if ((parts & 16) != 0) writer.u32(650);
  return Body().data(writer.bytes()).bytes();
}

TEST(WalChanges, name_relations_that_a_transaction_drops) {
  for (const int major : {13, 14, 15, 16, 17, 18}) {
    for (const unsigned operation : {0x81U, 0xA1U, 0xB1U, 0xC1U}) {
      for (const unsigned parts : {4U, 1U | 4U, 1U | 2U | 4U | 8U, 2U | 4U | 8U | 16U | 256U}) {
        const auto found =
            changes(1, operation, transaction_end(parts, major >= 18 ? 16 : 12), major);
        ASSERT_TRUE(found) << major << " " << operation << " " << parts;
        ASSERT_EQ(found->size(), 2U);
        EXPECT_EQ((*found)[0].kind, Kind::drop_relation);
        EXPECT_EQ((*found)[0].relation, table);
        EXPECT_EQ((*found)[1].relation, other);
      }
    }
  }
  EXPECT_TRUE(changes(1, 0x80, transaction_end(2, 12))->empty());
  EXPECT_TRUE(changes(1, 0x00, Body().data(base::Bytes(8)).bytes())->empty());
  EXPECT_TRUE(changes(1, 0x10, only_data({1, 2, 3}))->empty());  // prepared: nothing is gone yet
  base::ByteWriter short_of_one;
  short_of_one.u64(1);
  short_of_one.raw(numbers({4, 2, 1663, 5, 16384}));
  EXPECT_FALSE(changes(1, 0x81, Body().data(short_of_one.bytes()).bytes()));
}

TEST(WalChanges, U11_cannot_be_told_of_what_is_not_known) {
  const base::Bytes plain = Body().block(0, table, 0, 17).data(base::Bytes(3)).bytes();
  for (int major = 13; major <= 18; ++major) {
    for (unsigned manager = 8; manager <= 21; ++manager) {
      EXPECT_TRUE(changes(manager, 0, plain, major)) << major << " " << manager;
    }
    for (const unsigned manager : {22U, 23U, 127U, 128U, 255U}) {
      EXPECT_FALSE(changes(manager, 0, plain, major)) << major << " " << manager;
    }
    EXPECT_FALSE(changes(10, 0x01, plain, major)) << "it changes files in some other way";
    EXPECT_FALSE(changes(0, 0xB1, plain, major));
    EXPECT_FALSE(changes(2, 0x30, only_data({1663, 5, 16384, 0}), major));
    EXPECT_FALSE(changes(1, 0x70, plain, major));
    EXPECT_FALSE(changes(7, 0x10, only_data({5, 1663, 4, 77}), major));
  }
  EXPECT_FALSE(changes(10, 0, plain, 12));
  EXPECT_FALSE(changes(10, 0, plain, 19));
}

TEST(WalChanges, U11_cannot_be_told_of_references_that_do_not_parse) {
  EXPECT_TRUE(changes(0, 0x40, {}));  // a segment switch is empty
  EXPECT_FALSE(changes(10, 0, Body().block(0, {}, 0, 17, 0, false, 0x80).bytes()));
  EXPECT_FALSE(changes(10, 0, Body().block(0, table, 4, 17).bytes()));
  EXPECT_FALSE(changes(10, 0, Body().block(0, table, 0, 0xFFFFFFFF).bytes()));
  EXPECT_FALSE(changes(10, 0, Body().block(1, table, 0, 1).block(1, table, 0, 2).bytes()));
  EXPECT_FALSE(changes(10, 0, Body().block(33, table, 0, 1).bytes()));
  EXPECT_FALSE(changes(10, 0, Body().block(0, table, 0, 1, 0, false, 0x20).bytes()));
  base::Bytes longer = Body().block(0, table, 0, 1).data(base::Bytes(5)).bytes();
  longer.push_back(0);
  EXPECT_FALSE(changes(10, 0, longer));
}

std::vector<base::Bytes> samples() {
  return {Body()
              .block(0, table, 0, 17, 1 | 2 | 4, true, 0x40, 60)
              .block(1, {}, 0, 18, 0, false, 0x80)
              .origin()
              .data(base::Bytes(14, 1))
              .bytes(),
          transaction_end(1 | 2 | 4 | 8 | 16 | 256, 12),
          only_data({16999, 2, 1663, 16500}),
          only_data({99, 1663, 5, 16384, 7}),
          Body().data(base::Bytes(300, 2)).bytes(),
          Body().data(numbers({100, 8, 10, 0, 64, 0, 1})).bytes()};
}

// (A record's end is known from its header only, so a cut may leave fewer headers that fit.)
TEST(WalChanges, cut_anywhere_are_refused_or_tell_of_nothing_else) {
  const base::Bytes whole = samples()[0];
  ASSERT_TRUE(changes(10, 0, whole));
  std::size_t told = 0;
  for (std::size_t length = 1; length < whole.size(); ++length) {
    const base::Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const auto found = changes(10, 0, cut);
    if (!found) continue;
    ++told;
    for (const FileChange& each : *found) EXPECT_TRUE(each.relation == table) << length;
  }
  EXPECT_LE(told, 4U);
}

TEST(WalChanges, of_any_bytes_are_read_within_bounds) {
  const std::vector<base::Bytes> originals = samples();
  for (std::size_t seed = 0; seed < base::testing::fuzz_iterations(20'000); ++seed) {
    base::testing::Random random(seed);
    const base::Bytes bytes =
        random.chance(10)
            ? random.bytes(random.below(200))
            : base::testing::mutated(originals[random.below(originals.size())], random);
    const int major = 13 + static_cast<int>(random.below(6));
    const auto manager = static_cast<unsigned>(random.below(12));
    const auto info = static_cast<unsigned>(random.below(256));
    SCOPED_TRACE(seed);
    EXPECT_NO_THROW(changes(manager, info, bytes, major));
  }
}

}  // namespace
}  // namespace holdfast::postgres
