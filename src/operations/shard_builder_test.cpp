#include "operations/shard_builder.h"

#include <gtest/gtest.h>

#include <set>

#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using repository::FileEntry;
using repository::ShardReference;

FileEntry file(int number, std::size_t runs = 1) {
  FileEntry entry{fmt::format("base/1/{:05}", number), 0, 0600, "o:g", 1, 2, {}, {}};
  for (std::size_t i = 0; i < runs; ++i) {
    repository::Run run{1, repository::PackId{}, {static_cast<std::uint32_t>(i * 2)}};
    entry.runs.push_back(run);
  }
  entry.size = runs * repository::page_bytes;
  return entry;
}

class Shards : public testing::Test {
 protected:
  Shards() : backups_(repository_.repository, {"main", "1"}) {}
  /// Files 0, 10, 20, ... of 1000 runs each, so that 33 make a shard; the last one has 34.
  std::vector<ShardReference> first() {
    ShardBuilder builder(backups_, {});
    for (int i = 0; i < 100; ++i) builder.add(file(10 * i, 1000), 0, false);
    builder.finish();
    return builder.shards();
  }
  std::size_t shard_of(const std::vector<ShardReference>& shards, const std::string& path) const {
    std::size_t shard = 0;
    while (shard + 1 < shards.size() && repository::comes_before(shards[shard].last_path, path)) {
      ++shard;
    }
    return shard;
  }
  /// The same files again, some changed, some gone, some new.
  void again(const std::vector<ShardReference>& shards, const std::set<int>& changed,
             const std::set<int>& gone = {}, const std::set<int>& added = {}) {
    ShardBuilder builder(backups_, shards);
    std::set<int> all = added;
    for (int i = 0; i < 100; ++i) all.insert(10 * i);
    std::size_t count = 0;
    for (const int number : all) {
      if (gone.contains(number)) continue;
      const bool is_old = !changed.contains(number) && !added.contains(number);
      const FileEntry entry = file(number, is_old ? 1000 : 999);
      builder.add(entry, shard_of(shards, entry.path), is_old);
      ++count;
    }
    builder.finish();
    kept_ = builder.kept();
    made_ = builder.shards();
    expect_files(count);
  }
  void expect_files(std::size_t count) {
    base::Decompressor decompressor;
    std::string last;
    std::size_t found = 0;
    for (const ShardReference& shard : made_) {
      const auto files = backups_.read_shard(shard.id, decompressor).files;
      EXPECT_EQ(files.size(), shard.files);
      for (const FileEntry& each : files) {
        EXPECT_LT(last, each.path);
        last = each.path;
        ++found;
      }
    }
    EXPECT_EQ(found, count);
  }

  repository::testing::TestRepository repository_{false};
  repository::Backups backups_;
  std::vector<ShardReference> made_;
  std::size_t kept_ = 0;
};

TEST_F(Shards, are_kept_if_nothing_changed) {
  const auto shards = first();
  ASSERT_EQ(shards.size(), 3U);
  again(shards, {});
  EXPECT_EQ(made_, shards);
  EXPECT_EQ(kept_, 3U);
}

TEST_F(Shards, are_written_again_where_a_file_changed_and_nowhere_else) {
  const auto shards = first();
  again(shards, {400});
  EXPECT_EQ(kept_, 2U);
  EXPECT_EQ(made_.size(), 3U);
}

TEST_F(Shards, are_written_again_where_a_file_is_gone_or_new) {
  const auto shards = first();
  again(shards, {}, {0});
  EXPECT_EQ(kept_, 2U);
  again(shards, {}, {}, {405});
  EXPECT_EQ(kept_, 2U);
  again(shards, {}, {990}, {995});
  EXPECT_EQ(kept_, 2U);
  // All that a shard had is gone.
  std::set<int> gone;
  for (int i = 0; i < 33; ++i) gone.insert(10 * i);
  again(shards, {}, gone);
  EXPECT_EQ(kept_, 2U);
  EXPECT_EQ(made_.size(), 2U);
}

TEST_F(Shards, do_not_become_ever_smaller) {
  auto shards = first();
  std::set<int> gone;
  for (int i = 1; i < 33; ++i) gone.insert(10 * i);
  again(shards, {}, gone);  // one file is left of the first shard: the second takes it in
  EXPECT_EQ(kept_, 1U);
}

}  // namespace
}  // namespace holdfast::operations
