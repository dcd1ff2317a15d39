#pragma once

// Copying a data directory into packs and map shards, with many workers: the heart of a backup.
//
// One thread walks the directory and queues files in the order of their paths; workers take pieces
// (a batch of small files, or a part of a large one), read, check and store their pages, and leave
// the runs behind. Files whose pieces are all done leave the queue at its front, in order, and go
// into map shards. So memory holds what is being worked on, never the whole directory or its map.
//
// The server writes all the while. A file that vanishes was dropped and is left out; one that
// shrinks ends where it ends; one that grows is cut at the size it had when it was found: replay of
// WAL from the backup's start mends all three (pitfalls B10, B14).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/report.h"
#include "operations/catalog.h"
#include "operations/file_comparison.h"
#include "postgres/data_directory.h"
#include "postgres/page.h"
#include "repository/backups.h"
#include "repository/pack.h"

namespace holdfast::operations {

struct CopyRequest {
  base::fs::path data_directory;
  std::string version_directory;  ///< of tablespaces: "PG_15_202209061"
  std::string backup;             ///< id, for the packs' descriptions
  std::uint64_t stamp = 0;        ///< the backup's start
  bool checksums = false;         ///< verify pages
  std::uint32_t segment_blocks = postgres::default_segment_blocks;
  ComparisonBase compare;  ///< with what it is compared
  unsigned workers = 1;
  /// Called every few seconds, by one thread at a time; may throw, which ends the copying. A backup
  /// whose server is gone should not go on reading files for hours.
  std::function<void()> check;
};

/// A page that cannot have changed, by what the list of changes says, has changed; or what came by
/// such a list is not what it must be.
class WrongList : public base::Error {
 public:
  WrongList(const std::string& path, std::uint64_t page);
  explicit WrongList(const base::Error& error) : Error(error) {}
};

struct CopyResult {
  std::vector<repository::DirectoryEntry> directories;
  std::vector<repository::ShardReference> shards;
  std::vector<repository::PackWriter::PackSummary> packs;
  std::vector<DamagedFile> damaged;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::size_t kept_shards = 0;  ///< how many of the shards are the previous backup's
};

/// Copies all that belongs into a backup except global/pg_control, which must be read last.
/// Everything is durable on return.
CopyResult copy_files(const repository::Repository& repository, const repository::Backups& backups,
                      const CopyRequest& request, base::Progress& progress);

/// "user:group", by name where there is one.
std::string name_of_owner(std::uint32_t uid, std::uint32_t gid);

}  // namespace holdfast::operations
