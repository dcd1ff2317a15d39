#include "postgres/page.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

base::Bytes pattern_page() {
  base::Bytes page(page_size);
  std::uint32_t x = 20261123;
  for (std::uint8_t& byte : page) {
    x = x * 1664525 + 1013904223;
    byte = static_cast<std::uint8_t>(x >> 24);
  }
  return page;
}

base::Bytes sound_page(std::uint32_t block) {
  base::Bytes page = pattern_page();
  base::store(page.data() + 8, page_checksum(page, block));
  return page;
}

// The expected values are those of page_checksum() of pageinspect, on PostgreSQL 15.
TEST(Page, has_the_checksum_that_postgres_computes) {
  const base::Bytes page = pattern_page();
  EXPECT_EQ(page_checksum(page, 0), 26570);
  EXPECT_EQ(page_checksum(page, 1), 26569);
  EXPECT_EQ(page_checksum(page, 131071), 25358);
  EXPECT_EQ(page_checksum(page, 131072), 26568);
  EXPECT_EQ(page_checksum(page, 4000000000), 46430);
}

TEST(Page, checksum_depends_on_every_byte_but_its_own_two) {
  const base::Bytes page = pattern_page();
  const std::uint16_t sum = page_checksum(page, 7);
  for (std::size_t i = 0; i < page_size; ++i) {
    base::Bytes changed = page;
    changed[i] ^= 0x40;
    EXPECT_EQ(page_checksum(changed, 7) == sum, i == 8 || i == 9) << i;
  }
}

TEST(Page, checksum_needs_no_alignment) {
  base::Bytes shifted(page_size + 3);
  const base::Bytes page = pattern_page();
  std::copy(page.begin(), page.end(), shifted.begin() + 3);
  EXPECT_EQ(page_checksum(base::View(shifted).subspan(3), 1), page_checksum(page, 1));
}

TEST(Page, is_sound_in_its_own_place_only) {
  const base::Bytes page = sound_page(5);
  EXPECT_TRUE(page_is_sound(page, 5));
  EXPECT_FALSE(page_is_sound(page, 6));
  EXPECT_FALSE(page_is_sound(page, 5 + default_segment_blocks));
}

TEST(Page, is_sound_when_new) {
  const base::Bytes page(page_size);
  EXPECT_TRUE(is_zero_page(page));
  EXPECT_TRUE(page_is_sound(page, 0));
  EXPECT_TRUE(page_is_sound(page, 99));
}

// BK6: damage that hits one header field must not pass for a new page.
TEST(Page, with_one_zero_field_is_no_zero_page_BK6) {
  for (std::size_t i = 0; i < page_size; ++i) {
    base::Bytes page(page_size);
    page[i] = 1;
    EXPECT_FALSE(is_zero_page(page)) << i;
    EXPECT_FALSE(page_is_sound(page, 0)) << i;
  }
  base::Bytes page = pattern_page();
  page[14] = page[15] = 0;
  base::store(page.data() + 8, page_checksum(page, 3));
  EXPECT_FALSE(page_is_sound(page, 3));
}

// BK7: the LSN of a page says nothing of its soundness.
TEST(Page, is_not_forgiven_for_a_high_lsn_BK7) {
  base::Bytes page = sound_page(2);
  base::store<std::uint64_t>(page.data(), ~std::uint64_t{0});
  EXPECT_FALSE(page_is_sound(page, 2));
}

TEST(Page, is_not_sound_when_cut) {
  const base::Bytes page = sound_page(2);
  EXPECT_FALSE(page_is_sound(base::View(page).first(page_size - 1), 2));
  EXPECT_FALSE(page_is_sound({}, 0));
}

TEST(Page, lsn_has_its_high_half_first) {
  base::Bytes page(page_size);
  base::store<std::uint32_t>(page.data(), 0x16);
  base::store<std::uint32_t>(page.data() + 4, 0xB374D848);
  EXPECT_EQ(to_string(page_lsn(page)), "16/B374D848");
}

}  // namespace
}  // namespace holdfast::postgres
