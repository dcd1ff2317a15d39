#pragma once

// Letting the server leave out what has not changed, where its data directory cannot be read
// (incremental base backups, PostgreSQL 17).
//
// The server decides by its WAL summaries which blocks of a file it sends, if that file is in the
// manifest of an earlier backup that it is given. We write that manifest ourselves, from the
// previous backup's map, and put into it only what summaries can be believed for: main forks of
// relations. All else comes whole and is compared by content (POSTGRES U1, U2). Of the main forks a
// sample, another one in each backup, is left out as well, so that summaries which miss something
// are found out.
//
// Nor is that believed blindly. The server merges its summaries in the order of a directory (up to
// 18), so that a file's cut may hide what was written behind it: files that were cut off since are
// not in the manifest either, and what comes in part must hold each block that the summaries name,
// read by us in the order of the WAL, and that our own WAL names (sent_blocks.h).
//
// The previous backup must be on the history that the server is on (U3, U4). Its files cannot be
// looked at; so the WAL in which that backup ended must be the server's own.

#include <string>

#include "operations/baseline.h"
#include "operations/changed_blocks.h"
#include "postgres/backup_manifest.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// What the server was asked to send in part.
class Increment {
 public:
  /// `backup` is the id of the new backup: it chooses the sample. `cuts` says which files were cut
  /// off since the previous one, as far as that is known; a file has `segment_blocks` blocks.
  Increment(const base::KeyedHash& hash, std::string backup, const Baseline& baseline, bool standby,
            ChangedBlocks cuts, std::uint32_t segment_blocks);

  /// Only changes of this file of the previous backup.
  bool asks_for_changes(const repository::FileEntry& previous) const;
  void write_manifest(const repository::Backups& backups, postgres::ManifestWriter& writer) const;

  /// What the server's summaries say themselves. It is known only once the new backup has begun.
  void set_changes(const ChangedBlocks& blocks) { changes_ = &blocks; }
  const ChangedBlocks& changes() const { return *changes_; }

  /// May a page that is not among the changes, and whose LSN is older than the new backup, be other
  /// than the previous backup has it? Hint bits may be set without WAL; a standby never has the
  /// same as its primary.
  bool may_differ(postgres::Lsn page) const;

 private:
  const base::KeyedHash& hash_;
  std::string backup_;
  const Baseline& baseline_;
  bool hints_differ_;
  ChangedBlocks cuts_;
  std::uint32_t segment_blocks_;
  const ChangedBlocks* changes_ = nullptr;
};

/// Why the server cannot be asked for what has changed since that backup; empty if nothing speaks
/// against it so far.
std::string find_obstacle(const Baseline& baseline, postgres::Timeline timeline);

/// Is the backup's end a part of the server's own history, by the WAL that both the server and the
/// archive have? Empty if so, otherwise why that cannot be told: then it may have been set back to
/// an earlier state. `position` is where the server is; `workers` threads may read WAL.
std::string find_doubt(const Baseline& baseline, const repository::WalArchive& archive,
                       const std::string& connection, postgres::Lsn position, unsigned workers);

}  // namespace holdfast::operations
