#include "repository/container.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using testing::code_of;
using testing::succeeds_or;

const std::string directory = "clusters/main/1";
const std::string name = "packs/x";
const std::string full_name = directory + "/" + name;
constexpr std::size_t header_size = 32;
constexpr std::size_t trailer_size = 20;

ObjectId numbered(std::uint8_t number) {
  ObjectId id;
  id.bytes.fill(number);
  return id;
}

/// Each promise holds with a key and without.
class Container : public ::testing::TestWithParam<bool> {
 protected:
  Container() {
    if (GetParam()) protection_.key = base::Secret(Bytes(32, 0x42));
  }
  void write(const std::vector<Bytes>& frames, const std::string& as = name, std::uint8_t id = 1) {
    base::Compressor compressor(base::Compressor::Effort::fast);
    ContainerWriter writer(store_, directory, as, Kind::pack, numbered(id), protection_);
    for (const Bytes& frame : frames) writer.add(frame, compressor);
    ASSERT_TRUE(writer.commit());
  }
  Bytes read(const std::string& as = name, Kind kind = Kind::pack,
             const std::optional<ObjectId>& id = {}) {
    base::Decompressor decompressor;
    auto reader = ContainerReader::open(store_, directory, as, kind, protection_, id);
    if (!reader) return {};
    return reader->read_all(decompressor);
  }
  /// Does anything tell that these are not the bytes that were written?
  bool is_found(const Bytes& changed) {
    objects_->at(full_name) = changed;
    try {
      read();
      return false;
    } catch (const base::Error& error) {
      EXPECT_TRUE(error.code() == Code::corrupt || error.code() == Code::unsupported);
      EXPECT_NE(error.message().find(full_name), std::string::npos) << error.message();
      return true;
    }
  }

  Protection protection_;
  std::shared_ptr<testing::Objects> objects_ = std::make_shared<testing::Objects>();
  testing::MemoryStore store_{objects_};
};

INSTANTIATE_TEST_SUITE_P(Each, Container, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

const std::vector<Bytes> small = {base::copy(base::view("some incompressible text")), Bytes(300, 7),
                                  Bytes{}};

TEST_P(Container, gives_back_each_frame) {
  base::testing::Random random(1);
  const std::vector<Bytes> frames = {Bytes{}, Bytes{1}, random.bytes(8192),
                                     Bytes(max_frame_bytes, 3), random.bytes(max_frame_bytes)};
  write(frames);
  base::Decompressor decompressor;
  auto reader =
      ContainerReader::open(store_, directory, name, Kind::pack, protection_, numbered(1));
  ASSERT_TRUE(reader);
  ASSERT_EQ(reader->frames().size(), frames.size());
  EXPECT_EQ(reader->id(), numbered(1));
  Bytes out;
  for (const std::uint32_t frame : {4U, 0U, 2U, 1U, 3U, 3U}) {
    reader->read(frame, decompressor, out);
    EXPECT_EQ(out, frames[frame]) << frame;
  }
  reader->fetch(1, 3);
  for (const std::uint32_t frame : {3U, 1U, 2U}) {
    out.resize(frames[frame].size());
    reader->decode(frame, decompressor, out);
    EXPECT_EQ(out, frames[frame]);
  }
}

TEST_P(Container, may_be_empty) {
  write({});
  EXPECT_TRUE(read().empty());
}

TEST_P(Container, that_is_not_there_is_absent) {
  EXPECT_FALSE(ContainerReader::open(store_, directory, name, Kind::pack, protection_));
}

TEST_P(Container, finds_any_flipped_bit) {
  write(small);
  const Bytes whole = objects_->at(full_name);
  EXPECT_FALSE(is_found(whole));
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes changed = whole;
    changed[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_TRUE(is_found(changed))
        << "bit " << bit % 8 << " of byte " << bit / 8 << " of " << whole.size();
  }
}

TEST_P(Container, finds_any_truncation_and_any_byte_too_much) {
  write(small);
  const Bytes whole = objects_->at(full_name);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_TRUE(is_found(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  Bytes longer = whole;
  longer.push_back(0);
  EXPECT_TRUE(is_found(longer));
  for (std::size_t at = 0; at <= whole.size(); ++at) {
    longer = whole;
    longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(at), 0);
    EXPECT_TRUE(is_found(longer)) << at;
  }
}

TEST_P(Container, finds_any_other_damage) {
  write(small);
  const Bytes whole = objects_->at(full_name);
  base::testing::Random random(2);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(1000); ++i) {
    const Bytes changed = base::testing::mutated(whole, random);
    EXPECT_EQ(is_found(changed), changed != whole) << base::to_hex(changed);
  }
}

TEST_P(Container, finds_frames_in_each_other_s_place) {
  base::testing::Random random(3);
  write({random.bytes(100), random.bytes(100)});
  const Bytes whole = objects_->at(full_name);
  constexpr std::ptrdiff_t stored = 100 + static_cast<std::ptrdiff_t>(FrameGuard::check_size);
  Bytes swapped = whole;
  std::swap_ranges(swapped.begin() + header_size, swapped.begin() + header_size + stored,
                   swapped.begin() + header_size + stored);
  EXPECT_TRUE(is_found(swapped));
  Bytes repeated = whole;
  std::copy_n(whole.begin() + header_size, stored, repeated.begin() + header_size + stored);
  EXPECT_TRUE(is_found(repeated));
}

TEST_P(Container, under_another_name_is_found) {
  write(small);
  objects_->all[directory + "/packs/y"] = objects_->at(full_name);
  EXPECT_EQ(code_of([&] { read("packs/y"); }), Code::corrupt);
}

TEST_P(Container, of_another_kind_is_found) {
  write(small);
  for (const Kind kind : {Kind::map_shard, Kind::backup_map, Kind::wal_file}) {
    EXPECT_EQ(code_of([&] { read(name, kind); }), Code::corrupt);
    objects_->at(full_name)[9] = static_cast<std::uint8_t>(kind);
    EXPECT_EQ(code_of([&] { read(name, kind); }), Code::corrupt);
    objects_->at(full_name)[9] = static_cast<std::uint8_t>(Kind::pack);
  }
}

TEST_P(Container, with_another_id_is_found) {
  write(small);
  EXPECT_FALSE(read(name, Kind::pack, numbered(1)).empty());
  EXPECT_EQ(code_of([&] { read(name, Kind::pack, numbered(2)); }), Code::corrupt);
}

TEST_P(Container, with_a_frame_of_another_one_is_found) {
  base::testing::Random random(4);
  write({random.bytes(100)});
  write({random.bytes(100)}, "packs/other", 2);
  const Bytes& other = objects_->at(directory + "/packs/other");
  Bytes mixed = objects_->at(full_name);
  std::copy_n(other.begin() + header_size, 100 + FrameGuard::check_size,
              mixed.begin() + header_size);
  EXPECT_TRUE(is_found(mixed));
}

TEST_P(Container, of_a_newer_format_is_refused_as_such) {
  write(small);
  objects_->at(full_name)[8] = 2;
  EXPECT_EQ(code_of([&] { read(); }), Code::unsupported);
}

TEST_P(Container, of_an_unknown_codec_is_refused_as_such) {
  ContainerWriter writer(store_, directory, name, Kind::pack, numbered(1), protection_);
  Bytes body(10);
  writer.add_compressed(static_cast<base::Codec>(3), 20, body);
  ASSERT_TRUE(writer.commit());
  EXPECT_EQ(code_of([&] { read(); }), Code::unsupported);
}

TEST_P(Container, of_a_name_that_exists_is_not_written_INV_2) {
  write(small);
  const Bytes whole = objects_->at(full_name);
  ContainerWriter second(store_, directory, name, Kind::pack, numbered(2), protection_);
  EXPECT_FALSE(second.commit());
  EXPECT_EQ(objects_->at(full_name), whole);
}

TEST_P(Container, has_no_frames_beyond_its_last) {
  write(small);
  auto reader = ContainerReader::open(store_, directory, name, Kind::pack, protection_);
  const auto fetch = [&](std::uint32_t first, std::uint32_t count) {
    return code_of([&] { reader->fetch(first, count); });
  };
  EXPECT_EQ(fetch(0, 0), Code::corrupt);
  EXPECT_EQ(fetch(0, 4), Code::corrupt);
  EXPECT_EQ(fetch(3, 1), Code::corrupt);
  EXPECT_EQ(fetch(0xffffffff, 2), Code::corrupt);
  EXPECT_EQ(fetch(1, 0xffffffff), Code::corrupt);
}

TEST_P(Container, decodes_only_what_was_fetched) {
  write(small);
  auto reader = ContainerReader::open(store_, directory, name, Kind::pack, protection_);
  base::Decompressor decompressor;
  Bytes out(small[0].size());
  EXPECT_EQ(code_of([&] { reader->decode(0, decompressor, out); }), Code::internal);
  reader->fetch(1, 1);
  EXPECT_EQ(code_of([&] { reader->decode(0, decompressor, out); }), Code::internal);
  EXPECT_EQ(code_of([&] { reader->decode(2, decompressor, out); }), Code::internal);
  EXPECT_EQ(code_of([&] { reader->decode(3, decompressor, out); }), Code::internal);
}

TEST(SealedContainer, does_not_open_with_another_key_and_says_that_it_may_be_that) {
  const auto objects = std::make_shared<testing::Objects>();
  testing::MemoryStore store(objects);
  const Protection right{base::Secret(Bytes(32, 1))};
  ContainerWriter writer(store, directory, name, Kind::pack, numbered(1), right);
  ASSERT_TRUE(writer.commit());
  EXPECT_TRUE(ContainerReader::open(store, directory, name, Kind::pack, right));
  try {
    ContainerReader::open(store, directory, name, Kind::pack, {base::Secret(Bytes(32, 2))});
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), Code::corrupt);
    EXPECT_NE(error.hint().find("key"), std::string::npos) << error.hint();
  }
  EXPECT_EQ(code_of([&] { ContainerReader::open(store, directory, name, Kind::pack, {}); }),
            Code::corrupt);
}

TEST(SealedContainer, shows_nothing_of_what_it_holds) {
  const auto objects = std::make_shared<testing::Objects>();
  testing::MemoryStore store(objects);
  const Protection protection{base::Secret(Bytes(32, 1))};
  const Bytes page = base::testing::Random(1).bytes(512);
  ContainerWriter writer(store, directory, name, Kind::pack, numbered(1), protection);
  base::Compressor compressor(base::Compressor::Effort::fast);
  writer.add(page, compressor);
  ASSERT_TRUE(writer.commit());
  const Bytes& stored = objects->at(full_name);
  for (std::size_t at = 0; at + 8 <= page.size(); ++at) {
    const auto part = page.begin() + static_cast<std::ptrdiff_t>(at);
    EXPECT_EQ(std::search(stored.begin(), stored.end(), part, part + 8), stored.end());
  }
}

TEST(PlainContainer, does_not_open_where_a_sealed_one_is_expected) {
  const auto objects = std::make_shared<testing::Objects>();
  testing::MemoryStore store(objects);
  ContainerWriter writer(store, directory, name, Kind::pack, numbered(1), {});
  ASSERT_TRUE(writer.commit());
  const Protection key{base::Secret(Bytes(32, 2))};
  EXPECT_EQ(code_of([&] { ContainerReader::open(store, directory, name, Kind::pack, key); }),
            Code::corrupt);
}

/// The example of docs/format.md, and the same sealed under a key of 32 times 0x42.
constexpr const char* frozen_plain =
    "484f4c444641535401040000000000000193abcdef0123456789abcdef0123453109302f33303030"
    "3030300abf53e512b621a2aa8d1350f8b6b7514728b52ffd202845000010000001001f80059ed2c5"
    "4f7de06ca46fa0bf73838675a202000c0c0128111c7c1fcab79984039ece603d3ac4480207000000"
    "0700000000000000484f4c44454e440a";
constexpr const char* frozen_sealed =
    "484f4c444641535401040100000000000193abcdef0123456789abcdef0123455a4269f14f52606e"
    "d6b8a6e61ad237d04821dc213dfd52209bed9fbb06c1c55cab860629b37a527c659cf5f0da7f33ee"
    "3aa6417fa85edafa0e540d409feb50d58918b48f10c560bcf464d3290ab3e0493a26743e07000000"
    "0700000000000000484f4c44454e440a";

TEST(Format, of_version_1_is_read_for_ever_RC12) {
  const auto objects = std::make_shared<testing::Objects>();
  testing::MemoryStore store(objects);
  const std::string place = "clusters/main/7300000000000000001";
  const std::string history = "wal/00000002.history";
  Bytes expected = base::copy(base::view("1\t0/3000000\n"));
  expected.resize(expected.size() + 40);
  for (const bool sealed : {false, true}) {
    objects->all[place + "/" + history] = base::from_hex(sealed ? frozen_sealed : frozen_plain);
    Protection protection;
    if (sealed) protection.key = base::Secret(Bytes(32, 0x42));
    auto reader = ContainerReader::open(store, place, history, Kind::wal_file, protection,
                                        parse_object_id("0193abcdef0123456789abcdef012345"));
    base::Decompressor decompressor;
    ASSERT_TRUE(reader);
    EXPECT_EQ(reader->read_all(decompressor), expected);
  }
}

TEST(PlainContainer, trusts_no_size_that_it_reads) {
  // A trailer that asks for more than there is, before anything is checked or allocated.
  const auto objects = std::make_shared<testing::Objects>();
  testing::MemoryStore store(objects);
  ContainerWriter writer(store, directory, name, Kind::pack, numbered(1), {});
  ASSERT_TRUE(writer.commit());
  const Bytes whole = objects->at(full_name);
  for (const std::uint32_t size : {0U, 2U, 1000U, 0x7fffffffU, 0xffffffffU}) {
    for (const std::size_t field : {whole.size() - trailer_size, whole.size() - trailer_size + 4}) {
      Bytes changed = whole;
      base::store(changed.data() + field, size);
      objects->at(full_name) = changed;
      EXPECT_EQ(code_of([&] { ContainerReader::open(store, directory, name, Kind::pack, {}); }),
                Code::corrupt);
    }
  }
}

}  // namespace
}  // namespace holdfast::repository
