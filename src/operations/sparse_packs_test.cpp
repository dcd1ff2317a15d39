#include "operations/sparse_packs.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using repository::FileEntry;
using repository::PackId;

constexpr std::uint64_t MiB = 1 << 20;

PackId pack(std::uint8_t number) {
  PackId id;
  id.bytes.fill(number);
  return id;
}

class SparsePacks : public testing::Test {
 protected:
  SparsePacks() : backups_(repository_.repository, {"main", "1"}) {}
  /// A map in which packs have so many pages, in two shards.
  Baseline baseline(const std::map<PackId, std::uint64_t>& live) {
    Baseline made;
    base::Compressor compressor(base::Compressor::Effort::dense);
    int number = 0;
    for (const auto& [id, pages] : live) {
      repository::Shard shard;
      for (int half = 0; half < 2; ++half) {
        const std::uint64_t count = half == 0 ? pages / 2 : pages - pages / 2;
        if (count == 0) continue;
        const std::string path = fmt::format("base/1/{:05}", ++number);
        shard.files.push_back({path, count * 8192, 0600, "o:g", 1, 2, {{count, id, {0}}}, {}});
      }
      made.map.shards.push_back({backups_.write_shard(shard, compressor), shard.files.front().path,
                                 shard.files.back().path, shard.files.size(), 0});
    }
    return made;
  }

  repository::testing::TestRepository repository_{false};
  repository::Backups backups_;
};

TEST_F(SparsePacks, are_those_with_few_pages_for_their_size) {
  const auto base = baseline({{pack(1), 100}, {pack(2), 4000}, {pack(3), 2100}});
  const std::map<PackId, std::uint64_t> sizes{
      {pack(1), 32 * MiB}, {pack(2), 32 * MiB}, {pack(3), 32 * MiB}, {pack(4), 32 * MiB}};
  EXPECT_EQ(find_sparse_packs(backups_, base, sizes), std::set<PackId>{pack(1)});
}

TEST_F(SparsePacks, are_only_those_that_are_there) {
  EXPECT_TRUE(find_sparse_packs(backups_, baseline({{pack(1), 1}}), {}).empty());
}

TEST_F(SparsePacks, are_emptied_a_bounded_part_at_a_time_the_emptiest_first) {
  std::map<PackId, std::uint64_t> live;
  std::map<PackId, std::uint64_t> sizes;
  for (std::uint8_t i = 1; i <= 20; ++i) {
    live[pack(i)] = 1000U + i;
    sizes[pack(i)] = 32 * MiB;
  }
  const auto chosen = find_sparse_packs(backups_, baseline(live), sizes);
  // 64 MiB are 8192 pages.
  EXPECT_EQ(chosen.size(), 8U);
  EXPECT_TRUE(chosen.contains(pack(1)));
  EXPECT_FALSE(chosen.contains(pack(20)));
}

TEST_F(SparsePacks, are_small_ones_too_when_there_are_many) {
  std::map<PackId, std::uint64_t> live;
  std::map<PackId, std::uint64_t> sizes;
  for (std::uint8_t i = 1; i <= 64; ++i) {
    live[pack(i)] = 10;
    sizes[pack(i)] = 40 << 10;
  }
  EXPECT_TRUE(find_sparse_packs(backups_, baseline(live), sizes).empty());
  live[pack(65)] = 10;
  sizes[pack(65)] = 40 << 10;
  EXPECT_EQ(find_sparse_packs(backups_, baseline(live), sizes).size(), 65U);
}

}  // namespace
}  // namespace holdfast::operations
