#pragma once

// `backup`: the state of a cluster, copied while it runs.
//
// It begins as the previous backup is, and replaces the pages that have changed since; the result
// is a complete backup all the same, which needs no other one.
//
// Files come from a data directory that we read, or, where the configuration names none, through a
// replication connection (stream_backup.h). The server may be a standby either way; then what the
// backup promises to hold ends with the last commit that was replayed.
//
// The order of things is the safety of it: take the lease; pg_backup_start; copy every file,
// pg_control last; pg_backup_stop; make the WAL between the two durable in the repository; write
// the map; look whether everything is there; and only then write backup.json (INV-1). Whatever
// fails before that leaves nothing that could be taken for a backup, and what was stored is removed
// again.

#include <string>

#include "base/report.h"
#include "operations/catalog.h"

namespace holdfast::operations {

struct BackupRequest {
  std::string label = "holdfast";
  /// How to find what has changed since the previous backup. `automatic` takes the cheapest way
  /// that proves it; a way that is asked for and proves nothing gives way to the next, too.
  enum class Compare {
    automatic,
    wal,        ///< by the WAL between the two
    summaries,  ///< by the server's WAL summaries (17)
    pages,      ///< by the LSN of each page
    content,    ///< by the hash of each page
    nothing,    ///< store everything again
  };
  Compare compare = Compare::automatic;
  unsigned workers = 1;
};

/// Takes a backup. A cluster whose pages are damaged is backed up all the same; the result says so,
/// and so do the catalog and the exit status of the command.
BackupInfo take_backup(const Site& site, const BackupRequest& request, base::Progress& progress);

}  // namespace holdfast::operations
