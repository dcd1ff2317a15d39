#pragma once

// The backup that a new one is compared with, and how far it can be trusted.
//
// A changed-pages backup is only as sound as its idea of unchanged. The previous backup's pages may
// stand for those of now where its history is provably the one that the server is on, and where
// nothing can have written pages without WAL. Wherever that is in doubt (POSTGRES U3 to U6), pages
// are compared by content: that needs no trust, only reading.

#include <list>
#include <optional>
#include <string>
#include <vector>

#include "operations/catalog.h"
#include "operations/source.h"
#include "postgres/session.h"
#include "postgres/timeline_history.h"
#include "repository/backups.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

struct Baseline {
  BackupInfo backup;
  repository::BackupMap map;
  /// Why WAL and page LSNs prove nothing here, so that pages must be compared by content; empty if
  /// they do.
  std::string distrust;
  /// The way from it to now.
  postgres::TimelineHistory history{postgres::Timeline{1}};
};

/// The newest backup of the system whose map can be read. `start` is where the new one begins, on
/// `timeline`; the source's facts are those of now.
std::optional<Baseline> find_baseline(const Site& site, const Source& source, postgres::Lsn start,
                                      postgres::Lsn insert);

/// The files of a baseline, in the order of a walk.
class PreviousFiles {
 public:
  PreviousFiles(const repository::Backups& backups,
                const std::vector<repository::ShardReference>& shards)
      : backups_(backups), shards_(shards) {}

  /// The file as it was; paths must rise from call to call. A shard that cannot be read has no
  /// files.
  std::optional<repository::FileEntry> find(const std::string& path);
  /// The shard that the last path belongs to: the first one that ends at or behind it, or the last.
  std::size_t shard() const { return shard_; }
  /// Shards that could not be read.
  std::size_t unreadable() const { return unreadable_; }

 private:
  void load();
  const repository::Backups& backups_;
  const std::vector<repository::ShardReference>& shards_;
  base::Decompressor decompressor_;
  repository::Shard files_;
  std::size_t shard_ = 0;
  bool loaded_ = false;
  std::size_t next_ = 0;
  std::size_t unreadable_ = 0;
};

/// The same files in any order. Keeps a few shards in memory.
class PreviousLookup {
 public:
  PreviousLookup(const repository::Backups& backups,
                 const std::vector<repository::ShardReference>& shards)
      : backups_(backups), shards_(shards) {}
  std::optional<repository::FileEntry> find(const std::string& path);

 private:
  using Files = std::vector<repository::FileEntry>;
  const Files& load(std::size_t shard);
  const repository::Backups& backups_;
  const std::vector<repository::ShardReference>& shards_;
  base::Decompressor decompressor_;
  std::list<std::pair<std::size_t, Files>> loaded_;  ///< the last used first
};

}  // namespace holdfast::operations
