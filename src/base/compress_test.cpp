#include "base/compress.h"

#include <gtest/gtest.h>
#include <lz4.h>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

using Effort = Compressor::Effort;

Bytes repeated(std::string_view text, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::uint8_t>(text[i % text.size()]);
  return bytes;
}

bool yields(Codec codec, View stored, std::size_t size) {
  Bytes out(size);
  try {
    Decompressor().decompress(codec, stored, out);
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::corrupt);
    return false;
  }
}

TEST(Compressor, gives_back_every_size) {
  testing::Random random(1);
  Compressor compressor(Effort::fast);
  Decompressor decompressor;
  for (const std::size_t size : {0U, 1U, 2U, 31U, 4096U, 8192U, 262144U, 1048577U}) {
    for (const Bytes& bytes : {random.bytes(size), repeated("page ", size), Bytes(size)}) {
      Bytes stored;
      const Codec codec = compressor.compress(bytes, stored);
      EXPECT_LE(stored.size(), bytes.size());
      Bytes out(size);
      decompressor.decompress(codec, stored, out);
      EXPECT_EQ(out, bytes);
    }
  }
}

TEST(Compressor, keeps_bytes_that_do_not_get_smaller) {
  const Bytes bytes = testing::Random(2).bytes(8192);
  Bytes stored;
  EXPECT_EQ(Compressor(Effort::dense).compress(bytes, stored), Codec::raw);
  EXPECT_EQ(stored, bytes);
}

TEST(Compressor, appends_and_leaves_what_was_there) {
  Bytes stored = {1, 2, 3};
  EXPECT_EQ(Compressor(Effort::dense).compress(repeated("ab", 1000), stored), Codec::zstd);
  EXPECT_EQ(Bytes(stored.begin(), stored.begin() + 3), (Bytes{1, 2, 3}));
  EXPECT_TRUE(yields(Codec::zstd, View(stored).subspan(3), 1000));
}

TEST(Decompressor, yields_the_exact_size_or_nothing) {
  const Bytes bytes = repeated("holdfast ", 5000);
  Bytes zstd;
  ASSERT_EQ(Compressor(Effort::dense).compress(bytes, zstd), Codec::zstd);
  Bytes lz4(static_cast<std::size_t>(LZ4_compressBound(5000)));
  lz4.resize(static_cast<std::size_t>(LZ4_compress_default(
      reinterpret_cast<const char*>(bytes.data()), reinterpret_cast<char*>(lz4.data()), 5000,
      static_cast<int>(lz4.size()))));
  const std::array<std::pair<Codec, View>, 3> stored{
      {{Codec::raw, bytes}, {Codec::zstd, zstd}, {Codec::lz4, lz4}}};
  for (const auto& [codec, form] : stored) {
    EXPECT_TRUE(yields(codec, form, 5000));
    for (const std::size_t size : {0U, 1U, 4999U, 5001U, 100000U}) {
      EXPECT_FALSE(yields(codec, form, size)) << size;
    }
    EXPECT_FALSE(yields(codec, form.first(form.size() - 1), 5000));
    EXPECT_FALSE(yields(codec, {}, 5000));
  }
}

TEST(Decompressor, refuses_a_codec_that_it_does_not_know) {
  EXPECT_FALSE(yields(static_cast<Codec>(3), Bytes(10), 10));
  EXPECT_FALSE(yields(static_cast<Codec>(255), Bytes(10), 10));
}

TEST(Decompressor, takes_any_bytes_and_works_on_afterwards) {
  testing::Random random(3);
  Bytes stored;
  const Bytes bytes = repeated("some page of a table ", 3000);
  ASSERT_EQ(Compressor(Effort::fast).compress(bytes, stored), Codec::zstd);
  Decompressor decompressor;
  Bytes out(3000);
  for (std::size_t round = 0; round < testing::fuzz_iterations(500); ++round) {
    const auto codec = static_cast<Codec>(random.below(4));
    try {
      decompressor.decompress(codec, testing::mutated(stored, random), out);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::corrupt);
    }
  }
  decompressor.decompress(Codec::zstd, stored, out);
  EXPECT_EQ(out, bytes);
}

}  // namespace
}  // namespace holdfast::base
