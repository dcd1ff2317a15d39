#include "postgres/segment_content.h"

#include <gtest/gtest.h>

#include "base/testing.h"
#include "postgres/wal_builder.h"

namespace holdfast::postgres {
namespace {

constexpr std::size_t size = WalBuilder::segment_size.bytes;

/// A segment whose file was another one before: its pages name older places.
base::Bytes older_segment() {
  WalBuilder builder;
  while (builder.position().value < WalBuilder::origin.value + size) builder.append(777, 3);
  base::Bytes bytes = builder.segments().front();
  for (std::size_t at = 0; at < size; at += wal_page_size) {
    base::store<std::uint64_t>(bytes.data() + at + 8, WalBuilder::origin.value - 3 * size + at);
  }
  return bytes;
}

/// A segment that ends with a switch behind so many records.
struct Switched {
  base::Bytes clean;
  std::size_t used;
};
Switched switched_after(int records, std::size_t length, std::size_t last = 0) {
  WalBuilder builder;
  for (int i = 0; i < records; ++i) builder.append(length, 1);
  if (last > 0) builder.append(last, 2);
  const Lsn start = builder.position();
  builder.switch_segment();
  const base::Bytes bytes = builder.segments().front();
  std::size_t used = bytes.size();
  while (bytes[used - 1] == 0) --used;
  EXPECT_GE(used, start.value - WalBuilder::origin.value);
  return {bytes, (used + 7) / 8 * 8};
}

base::Bytes with_remains(const base::Bytes& clean, std::size_t from) {
  base::Bytes bytes = older_segment();
  std::copy_n(clean.begin(), from, bytes.begin());
  return bytes;
}

TEST(SegmentContent, is_zero_behind_a_switch_whatever_the_file_held_before) {
  for (const int records : {0, 1, 80, 900}) {
    const Switched made = switched_after(records, 1000);
    // Wherever the stream was cut off: right behind the switch, within its page, or later.
    for (const std::size_t more : {0UL, 8UL, 8192UL, 50000UL}) {
      const base::Bytes file = with_remains(made.clean, std::min(size - 8, made.used + more));
      ASSERT_NE(file, made.clean);
      const SegmentContent content(file);
      EXPECT_TRUE(content.had_remains()) << records;
      EXPECT_TRUE(std::ranges::equal(content.bytes(), made.clean)) << records << " " << more;
      EXPECT_TRUE(is_same_segment(file, made.clean));
      EXPECT_TRUE(is_same_segment(made.clean, file));
      EXPECT_FALSE(first_difference(file, made.clean));
    }
    const SegmentContent content(made.clean);
    EXPECT_FALSE(content.had_remains());
    EXPECT_EQ(content.bytes().data(), made.clean.data());
    EXPECT_TRUE(find_segment_end(made.clean).complete);
  }
}

/// The record of a switch may be split between two pages, and may end with its page.
TEST(SegmentContent, finds_a_switch_wherever_it_stands_in_a_page) {
  int split = 0;
  for (std::size_t last = 1; last < 8200; last += 8) {
    const Switched made = switched_after(2, 400, last);
    const std::size_t place = made.used % wal_page_size;
    if (place > 100 && place < wal_page_size - 100 && last % 800 != 1) continue;
    const SegmentEnd end = find_segment_end(made.clean);
    ASSERT_TRUE(end.switched) << last;
    ASSERT_GE(end.used, made.used) << last;
    ASSERT_LE(end.used, made.used + 24) << last;
    ASSERT_EQ(read_to_segment_end(made.clean).used, end.used) << last;
    split += end.used % wal_page_size < 24 + 24 && end.used % wal_page_size > 24 ? 1 : 0;
    const base::Bytes file = with_remains(made.clean, end.used);
    ASSERT_TRUE(std::ranges::equal(SegmentContent(file).bytes(), made.clean)) << last;
  }
  EXPECT_GT(split, 0);
}

TEST(SegmentContent, of_a_full_segment_is_all_of_it) {
  for (const std::size_t length : {100UL, 8000UL, 70000UL, 3 * size}) {
    WalBuilder builder;
    while (builder.position().value < WalBuilder::origin.value + 2 * size) {
      builder.append(length, 1);
    }
    for (std::size_t i = 0; i < 2; ++i) {
      const base::Bytes file = builder.segments()[i];
      for (const SegmentEnd& end : {find_segment_end(file), read_to_segment_end(file)}) {
        EXPECT_TRUE(end.complete) << length;
        EXPECT_FALSE(end.switched) << length;
        EXPECT_EQ(end.used, size) << length;
      }
      EXPECT_FALSE(SegmentContent(file).had_remains());
    }
  }
}

/// A standby has received a part of it, or its timeline was left there.
TEST(SegmentContent, of_a_segment_that_is_not_all_there_is_left_alone) {
  for (const int records : {1, 7, 80, 500}) {
    WalBuilder builder;
    for (int i = 0; i < records; ++i) builder.append(1000, 1);
    const base::Bytes zeros = builder.segments().front();
    const auto used = static_cast<std::size_t>(builder.position().value - WalBuilder::origin.value);
    const base::Bytes file = with_remains(zeros, used);
    for (const base::Bytes& each : {zeros, file}) {
      EXPECT_FALSE(find_segment_end(each).complete);
      EXPECT_FALSE(read_to_segment_end(each).complete);
      EXPECT_NEAR(static_cast<double>(read_to_segment_end(each).used), static_cast<double>(used),
                  8);
      EXPECT_FALSE(SegmentContent(each).had_remains());
    }
    EXPECT_FALSE(is_same_segment(zeros, file));
    EXPECT_FALSE(first_difference(file, zeros)) << "there is no WAL in which they differ";
  }
}

TEST(SegmentContent, that_differs_before_the_switch_is_not_the_same) {
  const Switched made = switched_after(80, 1000);
  base::Bytes other = made.clean;
  other[5000] ^= 1;
  EXPECT_FALSE(is_same_segment(made.clean, other));
  EXPECT_FALSE(is_same_segment(other, made.clean));
  EXPECT_EQ(first_difference(made.clean, other), 5000U);
  // Another life: the same records, one more, and a switch later.
  const Switched longer = switched_after(81, 1000);
  EXPECT_FALSE(is_same_segment(made.clean, longer.clean));
  EXPECT_FALSE(is_same_segment(longer.clean, made.clean));
  EXPECT_TRUE(first_difference(made.clean, longer.clean));
}

/// A server that lost pages in a crash, and came back, may have sound pages of this very place
/// behind a switch. PostgreSQL does not read them, and they make no difference.
TEST(SegmentContent, is_the_same_with_sound_pages_of_this_place_behind_the_switch) {
  const Switched made = switched_after(80, 1000);
  WalBuilder builder;
  while (builder.position().value < WalBuilder::origin.value + size) builder.append(555, 9);
  base::Bytes file = builder.segments().front();
  std::copy_n(made.clean.begin(), made.used, file.begin());
  EXPECT_EQ(read_to_segment_end(file).used, find_segment_end(made.clean).used);
  EXPECT_TRUE(is_same_segment(file, made.clean));
  EXPECT_TRUE(is_same_segment(made.clean, file));
}

TEST(SegmentContent, of_a_partial_segment_counts_as_far_as_both_have_it) {
  const auto partial = [](int records, std::size_t length) {
    WalBuilder builder;
    for (int i = 0; i < records; ++i) builder.append(length, 1);
    return builder.segments().front();
  };
  const base::Bytes shorter = partial(50, 1000);
  const base::Bytes longer = partial(60, 1000);
  EXPECT_TRUE(is_same_partial(shorter, longer));
  EXPECT_TRUE(is_same_partial(longer, with_remains(shorter, 52000)));
  EXPECT_FALSE(is_same_partial(shorter, partial(60, 999)));
  EXPECT_FALSE(is_same_partial(shorter, base::Bytes(size)));
}

TEST(SegmentContent, of_anything_else_is_what_it_is) {
  base::testing::Random random(7);
  for (const std::size_t length : {0UL, 10UL, 100UL, 8192UL, size}) {
    const base::Bytes bytes = random.bytes(length);
    EXPECT_FALSE(SegmentContent(bytes).had_remains());
    EXPECT_TRUE(find_segment_end(bytes).complete);
    EXPECT_TRUE(is_same_segment(bytes, bytes));
  }
  base::Bytes damaged = switched_after(80, 1000).clean;
  damaged[40 + 17] ^= 1;  // the first record
  EXPECT_FALSE(read_to_segment_end(damaged).switched);
}

/// Whatever else the two ways of looking see, what they call WAL is never changed.
TEST(SegmentContent, never_changes_a_byte_of_WAL) {
  const base::Bytes older = older_segment();
  for (std::size_t round = 0; round < base::testing::fuzz_iterations(60); ++round) {
    SCOPED_TRACE(round);
    base::testing::Random random(round);
    WalBuilder builder;
    const std::size_t target = random.below(size);
    while (builder.position().value < WalBuilder::origin.value + target) {
      if (random.chance(2)) builder.abandon_record();
      builder.append(1 + random.below(random.chance(5) ? 40000 : 300), 1);
    }
    const bool full = builder.position().value >= WalBuilder::origin.value + size;
    const bool switches = random.chance(66) && !full;
    if (switches) builder.switch_segment();
    base::Bytes file = builder.segments().front();
    const base::Bytes before = file;
    const SegmentEnd quick = find_segment_end(file);
    const SegmentEnd exact = read_to_segment_end(file);
    ASSERT_EQ(exact.switched, switches);
    ASSERT_EQ(quick.switched, switches);
    ASSERT_EQ(quick.complete, exact.complete);
    if (switches) {
      ASSERT_EQ(quick.used, exact.used);
    }
    const std::size_t from = exact.used + random.below(size - exact.used);
    std::copy(older.begin() + static_cast<std::ptrdiff_t>(from), older.end(),
              file.begin() + static_cast<std::ptrdiff_t>(from));
    const SegmentContent content(file);
    ASSERT_TRUE(std::ranges::equal(content.bytes(), switches ? before : file));
  }
}

}  // namespace
}  // namespace holdfast::postgres
