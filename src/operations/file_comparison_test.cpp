#include "operations/file_comparison.h"

#include <gtest/gtest.h>

#include <cstring>

#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using repository::FileEntry;
using repository::PackId;
using repository::page_bytes;
using Method = FileComparison::Method;

PackId pack(std::uint8_t number) {
  PackId id;
  id.bytes.fill(number);
  return id;
}

FileEntry file(std::string path, std::uint64_t pages) {
  FileEntry entry{std::move(path), pages * page_bytes, 0600, "o:g", 7, 1000, {}, {}};
  if (pages > 0) entry.runs = {{pages, pack(1), {0}}};
  return entry;
}

class Comparison : public testing::Test {
 protected:
  Comparison() {
    baseline_.backup.start = {0x3000000};
    base_.baseline = &baseline_;
    base_.trust_stamps = true;
    base_.emptied = &emptied_;
  }
  FileComparison compare(const FileEntry& now, std::optional<FileEntry> before) const {
    return {base_, 131072, now, std::move(before)};
  }
  Method method(const FileEntry& now, const FileEntry& before) const {
    return compare(now, before).method();
  }

  Baseline baseline_;
  ComparisonBase base_;
  ChangedBlocks changed_;
  std::set<PackId> emptied_;
  const FileEntry table_ = file("base/5/16384", 10);
};

TEST_F(Comparison, stores_a_file_that_was_not_there) {
  EXPECT_EQ(compare(table_, {}).method(), Method::nothing);
}

TEST_F(Comparison, trusts_page_lsns_of_main_forks_only) {
  EXPECT_EQ(method(table_, table_), Method::stamp);
  for (const char* path : {"base/5/16384_vm", "base/5/16384_fsm", "base/5/16384_init",  // U1
                           "pg_xact/0000", "base/5/pg_filenode.map", "PG_VERSION"}) {   // U2
    EXPECT_EQ(method(file(path, 10), file(path, 10)), Method::content) << path;
    EXPECT_TRUE(compare(file(path, 10), file(path, 10)).keeps_hashes()) << path;
  }
}

TEST_F(Comparison, B7_U5_compares_another_file_at_the_same_path_by_content) {
  FileEntry now = table_;
  now.inode = 8;
  EXPECT_EQ(method(now, table_), Method::content);
  now = table_;
  now.birth = 1001;
  EXPECT_EQ(method(now, table_), Method::content);
  // Where a file system does not know when a file was made, its inode may have been used again.
  FileEntry before = table_;
  now.birth = before.birth = 0;
  EXPECT_EQ(method(now, before), Method::content);
}

TEST_F(Comparison, trusts_nothing_where_history_is_in_doubt) {
  baseline_.distrust = "the server left its timeline";
  base_.changed = &changed_;
  EXPECT_EQ(method(table_, table_), Method::content);
}

TEST_F(Comparison, compares_by_content_where_hints_are_not_logged) {
  // Without checksums a page can become all-visible without a new LSN.
  base_.trust_stamps = false;
  EXPECT_EQ(method(table_, table_), Method::content);
}

TEST_F(Comparison, reads_only_what_is_listed_or_new) {
  changed_.add({1663, 5, 16384}, 3);
  changed_.add({1663, 5, 16384}, 4);
  changed_.add({1663, 5, 16384}, 11);
  base_.changed = &changed_;
  const FileComparison same = compare(table_, table_);
  EXPECT_EQ(same.method(), Method::list);
  EXPECT_FALSE(same.is_unchanged());
  auto ranges = same.to_read(0, 10);
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges[0].first, 3U);
  EXPECT_EQ(ranges[0].end, 5U);
  // It has grown by two pages; that the one of them is not in the list makes no difference (U8).
  ranges = compare(file("base/5/16384", 12), table_).to_read(0, 12);
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges[1].first, 10U);
  EXPECT_EQ(ranges[1].end, 12U);
  EXPECT_TRUE(compare(file("base/5/9", 10), file("base/5/9", 10)).is_unchanged());
  EXPECT_FALSE(compare(file("base/5/9", 9), file("base/5/9", 10)).is_unchanged());
}

TEST_F(Comparison, reads_again_what_a_nearly_empty_pack_holds) {
  base_.changed = &changed_;
  FileEntry before = table_;
  before.runs = {{4, pack(1), {0}}, {2, pack(2), {0}}, {4, pack(1), {4}}};
  emptied_.insert(pack(2));
  const auto ranges = compare(table_, before).to_read(0, 10);
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges[0].first, 4U);
  EXPECT_EQ(ranges[0].end, 6U);
}

base::Bytes page_with_lsn(std::uint32_t lsn) {
  base::Bytes page(page_bytes, 1);
  const std::uint32_t high = 0;
  std::memcpy(page.data(), &high, 4);
  std::memcpy(page.data() + 4, &lsn, 4);
  return page;
}

TEST_F(Comparison, keeps_a_page_whose_lsn_is_older_than_the_backup_before) {
  repository::testing::TestRepository repository(true);
  PageHashes hashes(repository.repository, "clusters/main/1");
  FileEntry before = table_;
  before.runs = {{4, pack(1), {8}}, {1, {}, {}}, {5, pack(2), {0}}};
  const FileComparison comparison = compare(table_, before);
  PageJudge judge(comparison, base_, hashes, 0);
  const base::Bytes old = page_with_lsn(0x2FFFFFF);
  EXPECT_EQ(judge.same(1, old, 0), (repository::Run{1, pack(1), {9}}));
  EXPECT_EQ(judge.same(2, page_with_lsn(0x3000000), 0), std::nullopt);
  EXPECT_EQ(judge.same(3, page_with_lsn(0), 0), std::nullopt);  // U8: never logged
  EXPECT_EQ(judge.same(4, old, 0), std::nullopt);               // it was zero
  emptied_.insert(pack(2));
  EXPECT_EQ(judge.same(5, old, 0), std::nullopt);
  EXPECT_EQ(judge.same(10, old, 0), std::nullopt);  // beyond its old end
}

TEST_F(Comparison, compares_kept_hashes) {
  repository::testing::TestRepository repository(true);
  PageHashes hashes(repository.repository, "clusters/main/1");
  FileEntry before = file("pg_xact/0000", 3);
  before.hashes = {11, 12, 13};
  const FileComparison comparison = compare(file("pg_xact/0000", 3), before);
  PageJudge judge(comparison, base_, hashes, 1);
  const base::Bytes page(page_bytes);
  EXPECT_TRUE(judge.needs_hash());
  EXPECT_EQ(judge.same(1, page, 12), (repository::Run{1, pack(1), {1}}));
  EXPECT_EQ(judge.same(2, page, 12), std::nullopt);
}

}  // namespace
}  // namespace holdfast::operations
