#pragma once

// The files of a backup, found by name.
//
// An image is what a backup's map says, read shard by shard as it is asked for: however large the
// backup is, opening it reads its map and nothing else, and only so many shards are in memory at a
// time. It knows where pages are; PageSource brings them.

#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "repository/backups.h"

namespace holdfast::mount {

/// Safe for several threads.
class Image {
 public:
  Image(const repository::Backups& backups, const repository::BackupId& id);

  const repository::BackupMap& map() const { return map_; }
  /// The file of that relative name; nullptr if the backup has none.
  std::shared_ptr<const repository::FileEntry> find(const std::string& path) const;
  /// The files directly in a directory ("" is the top), by their entries.
  std::vector<std::shared_ptr<const repository::FileEntry>> files_in(
      const std::string& directory) const;
  /// The shard at `index` of map().shards.
  std::shared_ptr<const repository::Shard> shard(std::size_t index) const;

 private:
  const repository::Backups& backups_;
  repository::BackupMap map_;

  struct Kept {
    std::size_t index;
    std::shared_ptr<const repository::Shard> shard;
  };
  mutable std::mutex mutex_;
  mutable base::Decompressor decompressor_;
  mutable std::list<Kept> kept_;  ///< the one used last is the first
};

}  // namespace holdfast::mount
