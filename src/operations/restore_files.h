#pragma once

// Writing a backup's files into a directory: pack by pack, not file by file.
//
// Each needed frame is read, checked and decompressed once, and its pages are written to wherever
// they belong. What cannot be read back as it was stored stops the restore. Nothing here makes the
// directory startable: global/pg_control is not written (see restore.h). No link is followed but
// those that the request names (base/beneath.h), whoever puts one there meanwhile.

#include <map>
#include <set>
#include <string>

#include "base/report.h"
#include "operations/catalog.h"
#include "repository/backups.h"

namespace holdfast::operations {

struct RestoreFilesRequest {
  base::fs::path directory;
  /// Where tablespaces go: by the path of their link ("pg_tblspc/16390").
  std::map<std::string, base::fs::path> tablespaces;
  /// Directories of the backup that are links and stay so (pg_wal on a disk of its own).
  std::set<std::string> links = {};
  /// The directory may hold files: what is right in them, by content, stays; all else is made
  /// right, and what the backup does not have is removed.
  bool delta = false;
  unsigned workers = 1;
};

struct RestoreFilesResult {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;    ///< of the restored files
  std::uint64_t written = 0;  ///< that were written (delta: less)
  std::uint64_t removed = 0;  ///< files that the backup does not have
};

RestoreFilesResult restore_files(const repository::Repository& repository,
                                 const repository::Backups& backups,
                                 const repository::BackupMap& map,
                                 const RestoreFilesRequest& request, base::Progress& progress);

/// Gives `path` (not followed if it is a link) to "user:group" if we are root: by name where there
/// is one here, else by number.
void give_to(const base::fs::path& path, const std::string& owner);

}  // namespace holdfast::operations
