#include "base/bytes.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

constexpr std::array<std::uint64_t, 9> edges{
    0, 1, 127, 128, 16383, 16384, 0xffffffff, std::uint64_t{1} << 63, ~std::uint64_t{0}};

using testing::code_of;

TEST(Hex, reads_back_what_it_wrote) {
  const Bytes bytes = testing::Random(1).bytes(64);
  EXPECT_EQ(from_hex(to_hex(bytes)), bytes);
  EXPECT_EQ(to_hex(Bytes{0x00, 0x0f, 0xf0, 0xff}), "000ff0ff");
  EXPECT_EQ(from_hex("AbCd"), (Bytes{0xab, 0xcd}));
  EXPECT_TRUE(from_hex("").empty());
}

TEST(Hex, refuses_what_spells_no_bytes) {
  for (const char* text : {"0", "0g", "g0", " 0", "0x", "00 ", "000", "-1"}) {
    EXPECT_EQ(code_of([&] { from_hex(text); }), Code::corrupt) << text;
  }
}

TEST(Varint, reads_back_what_it_wrote) {
  ByteWriter out;
  for (const std::uint64_t value : edges) out.varint(value);
  ByteReader in(out.bytes(), "test");
  for (const std::uint64_t value : edges) EXPECT_EQ(in.varint(), value);
  in.expect_end();
}

TEST(Varint, keeps_signs_and_writes_small_numbers_short) {
  constexpr std::array<std::int64_t, 7> values{0,
                                               -1,
                                               1,
                                               -64,
                                               63,
                                               std::numeric_limits<std::int64_t>::min(),
                                               std::numeric_limits<std::int64_t>::max()};
  ByteWriter out;
  for (const std::int64_t value : values) out.signed_varint(value);
  ByteReader in(out.bytes(), "test");
  for (const std::int64_t value : values) EXPECT_EQ(in.signed_varint(), value);
  EXPECT_EQ(out.size(), 5U + 10 + 10);
}

TEST(Varint, refuses_more_than_64_bits) {
  for (const char* hex : {"ffffffffffffffffff02", "80808080808080808002", "ffffffffffffffffffff01",
                          "ffffffffffffffffffffffffff"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_EQ(code_of([&] { ByteReader(bytes, "test").varint(); }), Code::corrupt) << hex;
  }
}

TEST(Varint, has_one_spelling_for_each_number) {
  for (const char* hex : {"8000", "ff00", "80808000", "81808000"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_EQ(code_of([&] { ByteReader(bytes, "test").varint(); }), Code::corrupt) << hex;
  }
}

TEST(Varint, refuses_a_count_that_cannot_be) {
  const Bytes bytes = from_hex("ffffffff0f");
  EXPECT_EQ(code_of([&] { ByteReader(bytes, "test").varint_at_most(0xfffffffe); }), Code::corrupt);
  EXPECT_EQ(ByteReader(bytes, "test").varint_at_most(0xffffffff), 0xffffffff);
}

TEST(ByteReader, reads_what_a_writer_wrote_and_no_byte_more) {
  ByteWriter out;
  out.u8(1);
  out.u16(0x0203);
  out.u32(0x04050607);
  out.u64(0x08090a0b0c0d0e0f);
  out.string("text");
  const Bytes bytes = out.take();
  EXPECT_EQ(to_hex(bytes), "010302070605040f0e0d0c0b0a09080474657874");
  const auto read = [](View view) {
    ByteReader in(view, "the test");
    EXPECT_EQ(in.u8(), 1);
    EXPECT_EQ(in.u16(), 0x0203);
    EXPECT_EQ(in.u32(), 0x04050607U);
    EXPECT_EQ(in.u64(), 0x08090a0b0c0d0e0fU);
    EXPECT_EQ(in.string(), "text");
    in.expect_end();
  };
  read(bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(code_of([&] { read(View(bytes).first(size)); }), Code::corrupt) << size;
  }
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_EQ(code_of([&] { read(longer); }), Code::corrupt);
}

TEST(ByteReader, names_what_it_reads_and_where) {
  try {
    ByteReader(View{}, "the map").u8();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "the map is corrupt at byte 0: it ends too early");
  }
}

TEST(ByteReader, takes_any_bytes_without_reading_past_them) {
  testing::Random random(2);
  for (std::size_t round = 0; round < testing::fuzz_iterations(2000); ++round) {
    const Bytes bytes = random.bytes(random.below(40));
    ByteReader in(bytes, "test");
    try {
      while (in.left() > 0) {
        const std::size_t before = in.left();
        const std::size_t kind = random.below(5);
        if (kind == 0) in.varint();
        if (kind == 1) in.signed_varint();
        if (kind == 2) in.string();
        if (kind == 3) in.u64();
        if (kind == 4) in.raw(random.below(20) + 1);
        EXPECT_LT(in.left(), before);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::corrupt);
    }
    EXPECT_LE(in.position(), bytes.size());
  }
}

}  // namespace
}  // namespace holdfast::base
