#pragma once

// `verify`: read every byte of a cluster's part of a repository, and say what is wrong with it and
// which backups that means.
//
// What is found is a value in the report, not an Error. An Error means that verifying itself could
// not be done: then nothing is said about the backups (TRAPS VE5, VE14).

#include <string>
#include <vector>

#include "base/report.h"
#include "operations/recovery_window.h"

namespace holdfast::operations {

struct BackupVerdict {
  BackupInfo backup;
  std::vector<std::string> problems;  ///< empty: every page of it can be restored
};

struct VerifyReport {
  std::vector<BackupVerdict> backups;
  std::vector<UnreadableBackup> unreadable;
  std::vector<std::string> problems;  ///< of the archive and of objects, beyond single backups
  /// WAL files stored with bytes of another segment behind their end, by earlier versions from
  /// standbys. No damage: nobody reads them, and `wal fetch` leaves them out.
  std::vector<std::string> remains;
  std::vector<RecoveryWindow> windows;
  std::uint64_t packs = 0;
  std::uint64_t frames = 0;
  std::uint64_t wal_segments = 0;
  std::uint64_t secret_bundles = 0;
  std::uint64_t file_sets = 0;
  std::uint64_t bytes = 0;    ///< stored bytes that were read
  std::uint64_t orphans = 0;  ///< objects that no backup refers to
  std::uint64_t orphan_bytes = 0;

  bool ok() const;
};

/// Throws Error(not_found) if there is no backup at all: nothing verified is no success.
VerifyReport verify(const Site& site, unsigned workers, base::Progress& progress);

/// The same for one backup: reads back all that it needs, and the WAL that makes it consistent.
/// Throws Error(not_found) if there is no such backup that can be read.
BackupVerdict verify_backup(const Site& site, const repository::BackupId& backup, unsigned workers,
                            base::Progress& progress);

/// Writes map shards that are lost or corrupt again, from what the packs say of themselves. Returns
/// how many. Sizes and owners of files are those that the packs noted.
std::uint64_t rebuild_maps(const Site& site, base::Progress& progress);

}  // namespace holdfast::operations
