#include "postgres/incremental_file.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::postgres {
namespace {

using base::Bytes;
using base::View;
using base::testing::Random;

constexpr std::uint32_t segment_blocks = 131072;
constexpr std::size_t block_bytes = 8192;

/// As sendFile() in basebackup.c writes it.
Bytes file(std::uint32_t kept, const std::vector<std::uint32_t>& blocks) {
  Bytes bytes;
  const auto put = [&](std::uint32_t value) {
    std::array<std::uint8_t, 4> stored{};
    base::store(stored.data(), value);
    bytes.insert(bytes.end(), stored.begin(), stored.end());
  };
  put(0xd3ae1f0d);
  put(static_cast<std::uint32_t>(blocks.size()));
  put(kept);
  for (const std::uint32_t block : blocks) put(block);
  if (blocks.empty()) return bytes;
  bytes.resize((bytes.size() + block_bytes - 1) / block_bytes * block_bytes);
  for (const std::uint32_t block : blocks) {
    bytes.resize(bytes.size() + block_bytes, static_cast<std::uint8_t>(block));
  }
  return bytes;
}

struct Read {
  IncrementalHeader header;
  Bytes content;
};
Read read(View bytes, std::uint64_t size, std::size_t piece) {
  IncrementalReader reader(size, segment_blocks);
  Read all;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const View rest = reader.take(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    all.content.insert(all.content.end(), rest.begin(), rest.end());
  }
  EXPECT_TRUE(reader.has_header());
  all.header = reader.header();
  return all;
}

bool is_refused(View bytes, std::uint64_t size) {
  try {
    read(bytes, size, 1000);
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

TEST(IncrementalFile, is_named_like_the_relation_that_it_stands_for) {
  EXPECT_EQ(stands_for("base/5/INCREMENTAL.16384.1"), "base/5/16384.1");
  EXPECT_EQ(stands_for("pg_tblspc/16390/PG_17_202406281/5/INCREMENTAL.16384"),
            "pg_tblspc/16390/PG_17_202406281/5/16384");
  EXPECT_EQ(stands_for("global/INCREMENTAL.1262_vm"), "global/1262_vm");
  for (const char* other : {"base/5/16384", "base/5/INCREMENTAL.PG_VERSION", "INCREMENTAL.16384",
                            "base/INCREMENTAL.5/16384", "base/5/INCREMENTAL."}) {
    EXPECT_EQ(stands_for(other), std::nullopt) << other;
  }
}

TEST(IncrementalFile, says_which_blocks_follow_however_its_bytes_come) {
  const std::vector<std::uint32_t> few = {0, 7, 131071};
  std::vector<std::uint32_t> many;  // the header takes more than a block
  for (std::uint32_t i = 0; i < 2100; ++i) many.push_back(3 * i);
  for (const auto& blocks : {std::vector<std::uint32_t>{}, few, many}) {
    const Bytes bytes = file(9, blocks);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{13}, bytes.size()}) {
      if (piece == 1 && blocks.size() > 10) continue;
      const Read all = read(bytes, bytes.size(), piece);
      EXPECT_EQ(all.header.blocks, blocks);
      EXPECT_EQ(all.header.kept_length, 9U);
      ASSERT_EQ(all.content.size(), blocks.size() * block_bytes);
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_EQ(all.content[i * block_bytes], static_cast<std::uint8_t>(blocks[i]));
      }
    }
  }
}

TEST(IncrementalFile, reaches_to_its_last_block_or_as_far_as_it_was_kept) {
  EXPECT_EQ((IncrementalHeader{9, {}}).length(), 9U);
  EXPECT_EQ((IncrementalHeader{9, {3, 8}}).length(), 9U);
  EXPECT_EQ((IncrementalHeader{9, {3, 9}}).length(), 10U);
}

TEST(IncrementalFile, is_refused_where_its_header_cannot_be_true) {
  const auto with = [](std::size_t at, std::uint32_t value) {
    Bytes bytes = file(9, {1, 2});
    base::store(bytes.data() + at, value);
    return bytes;
  };
  const std::size_t size = file(9, {1, 2}).size();
  EXPECT_FALSE(is_refused(with(0, 0xd3ae1f0d), size));
  EXPECT_TRUE(is_refused(with(0, 0xd3ae1f0e), size));  // another magic number
  EXPECT_TRUE(is_refused(with(4, 1), size));           // fewer blocks than came
  EXPECT_TRUE(is_refused(with(4, 3), size));           // more
  EXPECT_TRUE(is_refused(with(4, 0xffffffff), size));
  EXPECT_TRUE(is_refused(with(8, segment_blocks + 1), size));  // longer than a file can be
  EXPECT_FALSE(is_refused(with(8, segment_blocks), size));
  EXPECT_TRUE(is_refused(with(12, 2), size));               // a block twice
  EXPECT_TRUE(is_refused(with(12, 3), size));               // out of order
  EXPECT_TRUE(is_refused(with(16, segment_blocks), size));  // behind a file's end
  EXPECT_TRUE(is_refused(with(16, 0xffffffff), size));
  EXPECT_TRUE(is_refused(file(9, {1, 2}), size + 1));
  EXPECT_TRUE(is_refused(file(9, {}), 13));
  EXPECT_TRUE(is_refused(Bytes(11), 11));
}

TEST(IncrementalFile, whatever_comes_either_is_refused_or_stays_within_a_file) {
  Random random(20);
  std::size_t refused = 0;
  for (std::size_t i = base::testing::fuzz_iterations(20000); i > 0; --i) {
    std::vector<std::uint32_t> blocks;
    for (std::size_t count = random.below(6); count > 0; --count) {
      blocks.push_back(static_cast<std::uint32_t>(blocks.empty() ? 0 : blocks.back() + 1) +
                       static_cast<std::uint32_t>(random.below(40)));
    }
    const Bytes whole = file(static_cast<std::uint32_t>(random.below(100)), blocks);
    // Mostly in what the header says.
    Bytes bytes =
        base::testing::mutated(View(whole).first(std::min<std::size_t>(40, whole.size())), random);
    bytes.resize(std::min(bytes.size(), whole.size()));
    bytes.insert(bytes.end(), whole.begin() + std::ssize(bytes), whole.end());
    try {
      const Read all = read(bytes, bytes.size(), 1 + random.below(9000));
      EXPECT_LE(all.header.length(), segment_blocks);
      EXPECT_EQ(all.content.size(), all.header.blocks.size() * block_bytes);
      EXPECT_TRUE(std::ranges::is_sorted(all.header.blocks, std::less_equal<>()));
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::corrupt);
      ++refused;
    }
  }
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace holdfast::postgres
