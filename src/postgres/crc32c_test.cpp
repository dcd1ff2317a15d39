#include "postgres/crc32c.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

// RFC 3720, B.4: the check value of the nine digits, and 32 bytes of zeros and ones.
TEST(Crc32c, agrees_with_the_published_values) {
  EXPECT_EQ(crc32c(base::view("123456789")), 0xE3069283U);
  EXPECT_EQ(crc32c_by_tables(base::view("123456789")), 0xE3069283U);
  EXPECT_EQ(crc32c(base::Bytes(32, 0x00)), 0x8A9136AAU);
  EXPECT_EQ(crc32c(base::Bytes(32, 0xff)), 0x62A8AB43U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(Crc32c, is_the_same_with_and_without_the_instruction_at_every_length_and_alignment) {
  base::Bytes bytes(300);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 + 11);
  for (std::size_t from = 0; from < 9; ++from) {
    for (std::size_t length = 0; from + length <= bytes.size(); ++length) {
      const base::View part = base::View(bytes).subspan(from, length);
      ASSERT_EQ(crc32c(part), crc32c_by_tables(part)) << from << " " << length;
    }
  }
}

TEST(Crc32c, of_two_parts_in_a_row_is_that_of_the_whole) {
  const base::View whole = base::view("the quick brown fox jumps over the lazy dog");
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    EXPECT_EQ(crc32c(whole.subspan(cut), crc32c(whole.first(cut))), crc32c(whole));
  }
}

}  // namespace
}  // namespace holdfast::postgres
