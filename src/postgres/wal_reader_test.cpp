#include "postgres/wal_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "postgres/crc32c.h"
#include "postgres/wal_builder.h"

namespace holdfast::postgres {
namespace {

constexpr SegmentSize size = WalBuilder::segment_size;
constexpr std::uint64_t origin = WalBuilder::origin.value;

struct Seen {
  Lsn start;
  std::uint32_t transaction = 0;
  std::uint32_t body_crc = 0;
  bool operator==(const Seen&) const = default;
};

Seen seen(const WalRecord& record) {
  return {record.start, record.transaction, crc32c(record.body)};
}

struct Reading {
  std::vector<Seen> records;
  bool complete = false;  ///< no feed returned false
  Lsn end;
  std::vector<Lsn> starts() const {
    std::vector<Lsn> result;
    for (const Seen& each : records) result.push_back(each.start);
    return result;
  }
};

Reading read(const std::vector<base::Bytes>& segments, Lsn start = {origin}) {
  WalReader reader(start, size);
  Reading reading;
  reading.complete = true;
  for (const base::Bytes& segment : segments) {
    reading.complete = reader.feed(segment, [&](const WalRecord& record) {
      reading.records.push_back(seen(record));
      return true;
    });
    if (!reading.complete) break;
  }
  reading.end = reader.end();
  return reading;
}

/// Records of many lengths, over more than two segments, and where each begins.
std::vector<Lsn> append_many(WalBuilder& builder) {
  std::minstd_rand random(20261123);
  std::vector<Lsn> starts;
  for (std::uint32_t i = 0; builder.position().value < origin + 5 * size.bytes / 2; ++i) {
    const std::size_t length = i % 50 == 49 ? random() % 40000 : random() % 300;
    starts.push_back(builder.append(length, i));
  }
  return starts;
}

TEST(WalReader, finds_every_record_over_pages_and_segments) {
  WalBuilder builder;
  const std::vector<Lsn> starts = append_many(builder);
  const Reading reading = read(builder.segments());
  EXPECT_EQ(reading.starts(), starts);
  EXPECT_EQ(reading.end.value, (builder.position().value + 7) / 8 * 8);
  for (std::uint32_t i = 0; i < starts.size(); ++i) EXPECT_EQ(reading.records[i].transaction, i);
}

TEST(WalReader, finds_records_at_every_distance_from_the_end_of_a_page) {
  for (std::size_t length = 0; length < 200; ++length) {
    WalBuilder builder;
    builder.append(wal_page_size - 40 - 24 - length, 1);
    builder.append(100, 2);
    builder.append(100, 3);
    EXPECT_EQ(read(builder.segments()).records.size(), 3U) << length;
  }
}

TEST(WalReader, puts_together_a_record_that_fills_several_segments) {
  WalBuilder builder;
  builder.append(10, 1);
  const Lsn big = builder.append(3 * size.bytes, 2);
  const Lsn after = builder.append(10, 3);
  const Reading reading = read(builder.segments());
  ASSERT_EQ(reading.records.size(), 3U);
  EXPECT_EQ(reading.records[1].start, big);
  EXPECT_EQ(reading.records[2].start, after);
  auto segments = builder.segments();
  segments[1][wal_page_size + 16] ^= 1;  // how much is still to come
  EXPECT_EQ(read(segments).records.size(), 1U);
}

TEST(WalReader, passes_over_a_record_that_began_before_its_first_segment) {
  WalBuilder builder;
  builder.append(10, 1);
  builder.append(2 * size.bytes, 2);
  const Lsn after = builder.append(10, 3);
  std::vector<base::Bytes> segments = builder.segments();
  segments.erase(segments.begin());
  const Reading reading = read(segments, {origin + size.bytes});
  EXPECT_EQ(reading.starts(), std::vector<Lsn>{after});
}

TEST(WalReader, begins_with_the_first_record_at_or_after_its_start) {
  WalBuilder builder;
  const std::vector<Lsn> starts = append_many(builder);
  const Lsn middle = starts[100];
  EXPECT_EQ(read(builder.segments(), middle).starts().front(), middle);
  EXPECT_EQ(read(builder.segments(), {middle.value + 1}).starts().front(), starts[101]);
  const auto last = builder.segments().back();
  EXPECT_EQ(read({last}, starts.back()).starts(), std::vector<Lsn>{starts.back()});
}

TEST(WalReader, goes_on_in_the_next_segment_after_a_switch) {
  WalBuilder builder;
  builder.append(10, 1);
  builder.switch_segment();
  const Lsn after = builder.append(10, 2);
  WalReader reader({origin}, size);
  std::vector<WalRecord> records;
  const auto collect = [&](const WalRecord& record) {
    records.push_back(record);
    return true;
  };
  const auto segments = builder.segments();
  EXPECT_TRUE(reader.feed(segments[0], collect));
  EXPECT_EQ(reader.end().value, origin + size.bytes);
  reader.feed(segments[1], collect);
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[1].end.value, origin + size.bytes);
  EXPECT_EQ(records[2].start, after);
  EXPECT_EQ(read(segments, {records[1].start.value + 24}).starts(), std::vector<Lsn>{after});
}

TEST(WalReader, passes_over_a_record_that_was_given_up_after_a_crash) {
  WalBuilder builder;
  const Lsn before = builder.append(10, 1);
  builder.abandon_record();
  const Lsn after = builder.append(10, 2);
  EXPECT_EQ(read(builder.segments()).starts(), (std::vector<Lsn>{before, after}));
}

TEST(WalReader, follows_a_timeline_switch_but_not_backwards) {
  WalBuilder builder;
  const Lsn before = builder.append(10, 1);
  builder.set_timeline(4);
  builder.fill_page();
  builder.append(10, 2);
  EXPECT_EQ(read(builder.segments()).records.size(), 3U);
  builder.set_timeline(2);
  builder.fill_page();
  builder.append(10, 3);
  const Reading reading = read(builder.segments());
  EXPECT_EQ(reading.records.size(), 4U);
  EXPECT_EQ(reading.starts().front(), before);
  EXPECT_FALSE(reading.complete);
}

TEST(WalReader, ends_at_zeros) {
  WalBuilder builder;
  builder.append(10, 1);
  const Reading reading = read(builder.segments());
  EXPECT_FALSE(reading.complete);
  EXPECT_EQ(reading.records.size(), 1U);
  EXPECT_EQ(reading.end.value, (builder.position().value + 7) / 8 * 8);
}

TEST(WalReader, ends_where_an_older_use_of_the_file_shows_through) {
  // The older record behind the newest one is sound, and in its place. Only its past is another.
  WalBuilder older;
  for (std::uint32_t i = 0; i < 20; ++i) older.append(312, i);
  WalBuilder builder;
  for (std::uint32_t i = 0; i < 10; ++i) builder.append(312, i);
  for (std::uint32_t i = 0; i < 2; ++i) builder.append(144, i);
  base::Bytes mixed = older.segments()[0];
  const base::Bytes newer = builder.segments()[0];
  const auto written = static_cast<std::ptrdiff_t>(builder.position().value - origin);
  std::copy_n(newer.begin(), written, mixed.begin());
  const Reading reading = read({mixed});
  EXPECT_FALSE(reading.complete);
  EXPECT_EQ(read({older.segments()[0]}).records.size(), 20U);
  EXPECT_EQ(reading.records.size(), 12U);
}

// B25: what follows must be of the same system and version, and in its place.
TEST(WalReader, ends_at_a_segment_that_does_not_follow_B25) {
  WalBuilder builder;
  append_many(builder);
  const auto good = builder.segments();
  const auto whole = read(good).records.size();
  const std::pair<std::size_t, std::uint8_t> changes[] = {{0, 0x0D},  {2, 0},     {9, 1}, {24, 78},
                                                          {34, 0x20}, {37, 0x40}, {3, 1}};
  for (const auto& [at, value] : changes) {
    auto segments = good;
    segments[1][at] = value;
    const Reading reading = read(segments);
    EXPECT_FALSE(reading.complete) << at;
    EXPECT_LT(reading.records.size(), whole) << at;
  }
  EXPECT_FALSE(read({good[0], good[2]}).complete);
  EXPECT_FALSE(read({good[0], good[0]}).complete);
}

TEST(WalReader, stops_when_asked_and_can_go_on) {
  WalBuilder builder;
  const std::vector<Lsn> starts = append_many(builder);
  WalReader reader({origin}, size);
  std::vector<Lsn> found;
  for (const base::Bytes& segment : builder.segments()) {
    bool asked = true;
    while (asked) {
      asked = false;
      reader.feed(segment, [&](const WalRecord& record) {
        found.push_back(record.start);
        asked = true;
        return false;
      });
    }
  }
  EXPECT_EQ(found, starts);
}

TEST(WalReader, reads_a_segment_that_is_still_growing) {
  WalBuilder builder;
  const std::vector<Lsn> starts = append_many(builder);
  WalReader reader({origin}, size);
  std::vector<Lsn> found;
  std::minstd_rand random(7);
  std::uint64_t segment_start = origin;
  for (const base::Bytes& segment : builder.segments()) {
    for (std::size_t length = 0; length < segment.size();) {
      length = std::min<std::size_t>(segment.size(), length + random() % 3000);
      reader.feed(base::View(segment).first(length), [&](const WalRecord& record) {
        EXPECT_LE(record.start.value + 24 + record.body.size(), segment_start + length);
        found.push_back(record.start);
        return true;
      });
    }
    segment_start += size.bytes;
  }
  EXPECT_EQ(found, starts);
}

TEST(WalReader, tells_the_version_that_wrote_a_record) {
  const std::pair<std::uint16_t, int> all[] = {{0xD106, 13}, {0xD10D, 14}, {0xD110, 15},
                                               {0xD113, 16}, {0xD116, 17}, {0xD118, 18}};
  for (const auto& [magic, major] : all) {
    WalBuilder builder(magic);
    builder.append(10, 1);
    WalReader reader({origin}, size);
    int found = 0;
    reader.feed(builder.segments()[0], [&](const WalRecord& record) {
      found = record.major;
      return true;
    });
    EXPECT_EQ(found, major);
  }
  WalBuilder unknown(0xD121);
  unknown.append(10, 1);
  EXPECT_TRUE(read(unknown.segments()).records.empty());
}

TEST(WalReader, believes_no_claimed_length) {
  for (const std::uint32_t length : {0U, 1U, 23U, (1020U << 20) + 1, 0xffffffffU}) {
    WalBuilder builder;
    builder.append(10, 1);
    auto segments = builder.segments();
    const std::size_t at = (builder.position().value - origin + 7) / 8 * 8;
    base::store(segments[0].data() + at, length);
    const Reading reading = read(segments);
    EXPECT_EQ(reading.records.size(), 1U);
    EXPECT_FALSE(reading.complete);
  }
}

TEST(WalReader, waits_for_no_record_that_is_too_long_to_be) {
  WalBuilder builder;
  builder.append(wal_page_size - 40 - 24 - 8, 1);
  builder.append(2 * wal_page_size, 2);
  const base::Bytes pages = base::copy(base::View(builder.segments()[0]).first(2 * wal_page_size));
  EXPECT_TRUE(read({pages}).complete);
  base::Bytes longer = pages;
  base::store(longer.data() + wal_page_size - 8, 0xffffffffU);
  base::store(longer.data() + wal_page_size + 16, 0xffffffffU - 8);
  EXPECT_FALSE(read({longer}).complete);
}

// Whatever is broken, only sound records come out, in order and from the front.
TEST(WalReader, yields_nothing_but_true_records_from_damaged_bytes) {
  WalBuilder builder;
  append_many(builder);
  const auto good = builder.segments();
  const std::vector<Seen> truth = read(good).records;
  std::minstd_rand random(42);
  for (int round = 0; round < 150; ++round) {
    auto segments = good;
    for (std::size_t damage = 1 + random() % 3; damage > 0; --damage) {
      base::Bytes& segment = segments[random() % segments.size()];
      const std::size_t page = random() % (segment.size() / wal_page_size) * wal_page_size;
      const std::size_t at = random() % 2 == 0 ? random() % 64 : random() % wal_page_size;
      segment[page + at] = static_cast<std::uint8_t>(random());
    }
    const Reading reading = read(segments);
    ASSERT_LE(reading.records.size(), truth.size());
    EXPECT_TRUE(std::equal(reading.records.begin(), reading.records.end(), truth.begin()));
  }
}

TEST(WalReader, survives_bytes_of_any_kind) {
  std::minstd_rand random(1);
  for (int round = 0; round < 20; ++round) {
    base::Bytes bytes(size.bytes);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 8);
    EXPECT_TRUE(read({bytes}).records.empty());
  }
  EXPECT_TRUE(read({base::Bytes(3)}).records.empty());
  EXPECT_TRUE(read({base::Bytes()}).records.empty());
}

}  // namespace
}  // namespace holdfast::postgres
