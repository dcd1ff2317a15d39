#include "base/hash.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::base {
namespace {

TEST(Hash, agrees_with_xxh3_for_nothing_at_all) {
  EXPECT_EQ(hash128({}), (Hash128{0x6001c324468d497f, 0x99aa06d3014798d8}));
}

TEST(KeyedHash, is_the_same_for_the_same_key_and_bytes_only) {
  const Bytes page = testing::Random(1).bytes(8192);
  const Secret key(testing::Random(2).bytes(32));
  const KeyedHash hash(key);
  EXPECT_EQ(hash.hash64(page), KeyedHash(key).hash64(page));
  EXPECT_EQ(hash.hash128(page), KeyedHash(key).hash128(page));
  const KeyedHash other(Secret(testing::Random(3).bytes(32)));
  // Also the short inputs, which XXH3 treats in ways of their own.
  for (const std::size_t size : {1U, 4U, 16U, 128U, 240U, 241U, 8192U}) {
    EXPECT_NE(hash.hash64(View(page).first(size)), other.hash64(View(page).first(size))) << size;
    EXPECT_NE(hash.hash128(View(page).first(size)), other.hash128(View(page).first(size))) << size;
  }
  EXPECT_NE(hash.hash128(page), hash128(page));
}

TEST(KeyedHash, sees_any_flipped_bit_of_a_page) {
  Bytes page = testing::Random(4).bytes(8192);
  const KeyedHash hash(Secret(testing::Random(5).bytes(32)));
  const std::uint64_t whole = hash.hash64(page);
  for (std::size_t bit = 0; bit < page.size() * 8; bit += 61) {
    page[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_NE(hash.hash64(page), whole);
    page[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
  }
  EXPECT_EQ(hash.hash64(page), whole);
}

}  // namespace
}  // namespace holdfast::base
