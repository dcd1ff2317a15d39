#pragma once

// For tests only: a small backup in memory, and a mount's tree over it without a kernel.

#include <map>

#include "mount/hydrator.h"
#include "repository/testing.h"

namespace holdfast::mount::testing {

using base::Bytes;
namespace repo = holdfast::repository::testing;

/// A backup of these files, in one or more packs and shards, and what they hold.
class TestBackup {
 public:
  explicit TestBackup(std::map<std::string, Bytes> files, std::size_t files_in_shard = 3)
      : files_(std::move(files)) {
    repository::BackupMap map;
    map.directories = {{"base", 0700, ""}, {"base/1", 0700, ""}, {"global", 0700, ""}};
    repository::PackWriter packs(in_.repository.store(), repo::place.directory(),
                                 in_.repository.protection(), in_.repository.page_hash(),
                                 {id_.text, "", 1});
    std::vector<repository::FileEntry> entries;
    for (const auto& [path, content] : files_) entries.push_back(store(packs, path, content));
    packs.finish();
    std::ranges::sort(entries, [](const auto& a, const auto& b) {
      return repository::comes_before(a.path, b.path);
    });
    base::Compressor compressor(base::Compressor::Effort::dense);
    for (std::size_t i = 0; i < entries.size(); i += files_in_shard) {
      repository::Shard shard;
      repository::ShardReference reference;
      for (std::size_t j = i; j < std::min(entries.size(), i + files_in_shard); ++j) {
        reference.bytes += entries[j].size;
        ++reference.files;
        shard.files.push_back(entries[j]);
      }
      reference.first_path = shard.files.front().path;
      reference.last_path = shard.files.back().path;
      reference.id = backups_.write_shard(shard, compressor);
      map.shards.push_back(reference);
    }
    backups_.write_map(id_, map);
  }

  const std::map<std::string, Bytes>& files() const { return files_; }
  repo::TestRepository& in() { return in_; }
  const repository::Backups& backups() const { return backups_; }
  const repository::BackupId& id() const { return id_; }

 private:
  static repository::FileEntry store(repository::PackWriter& packs, const std::string& path,
                                     const Bytes& content) {
    repository::FileEntry entry;
    entry.path = path;
    entry.size = content.size();
    entry.mode = 0600;
    packs.begin_file({path, content.size(), 0600, ""});
    for (std::size_t at = 0; at < content.size(); at += repository::page_bytes) {
      const base::View page =
          base::View(content).subspan(at, std::min(repository::page_bytes, content.size() - at));
      if (std::ranges::all_of(page, [](std::uint8_t each) { return each == 0; })) {
        repository::append_run(entry.runs, {1, std::nullopt, {}});
        continue;
      }
      const auto where = packs.add(page, at / repository::page_bytes);
      repository::append_run(entry.runs, {1, where.pack, where.slot});
    }
    return entry;
  }

  std::map<std::string, Bytes> files_;
  repo::TestRepository in_{true};
  repository::Backups backups_{in_.repository, repo::place};
  repository::BackupId id_{"20261123T083000Z-4f2a"};
};

/// The tree over a backup; opening it again on the same directory is what a resumed mount does.
class TestMount {
 public:
  TestMount(TestBackup& backup, const base::fs::path& directory)
      : backup_(backup),
        source_(backup.in().repository, repo::place.directory()),
        image_(backup.backups(), backup.id()),
        tree_(image_, source_, options(directory)) {}

  static TreeOptions options(const base::fs::path& directory) {
    TreeOptions made;
    made.local = directory / "data";
    made.journal = directory / "journal";
    made.mounted = "/mounted";
    made.aside = "global/pg_control";
    made.aside_local = directory / "pg_control";
    made.direct = "pg_wal";
    for (const char* each : {"data/base/1", "data/global", "data/pg_wal"}) {
      base::fs::create_directories(directory / each);
    }
    return made;
  }

  Tree& tree() { return tree_; }
  void hydrate() {
    Hydrator hydrator(backup_.in().repository, repo::place.directory(), image_, tree_, source_);
    const std::stop_source never;
    hydrator.run(
        never.get_token(), [] { return false; }, [](const Hydrator::Progress&) {});
  }

  /// The whole file; nullopt if there is none.
  std::optional<Bytes> content(const std::string& path) {
    Tree::Handle handle;
    struct stat status {};
    if (tree_.open(path, O_RDONLY, handle) != 0) return std::nullopt;
    EXPECT_EQ(tree_.attributes(handle, status), 0);
    Bytes bytes(static_cast<std::size_t>(status.st_size));
    EXPECT_EQ(tree_.read(handle, bytes, 0), static_cast<int>(bytes.size()));
    return bytes;
  }

 private:
  TestBackup& backup_;
  PageSource source_;
  Image image_;
  Tree tree_;
};

}  // namespace holdfast::mount::testing
