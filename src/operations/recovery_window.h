#pragma once

// What can be restored to: the spans of time that backups and gapless WAL prove.

#include <vector>

#include "operations/catalog.h"
#include "operations/expired_wal.h"
#include "operations/wal_coverage.h"

namespace holdfast::operations {

/// One span without a hole, on one timeline's history of one system.
struct RecoveryWindow {
  repository::ClusterPlace place;
  postgres::Timeline timeline;  ///< the history is that of this timeline
  base::Timestamp from;         ///< the end of its first backup
  postgres::Lsn from_lsn;
  base::Timestamp to;  ///< of its last commit, or of its last backup if that is later
  postgres::Lsn to_lsn;
  /// There is more WAL behind it, but something between is missing that was not expired.
  bool ends_in_hole = false;
  /// Such a hole of no length: what follows is another life of the server (repository/gaps.h).
  bool ends_in_break = false;
  /// Not all of a long end was read (wal_end.h): there may be commits later than `to`.
  bool is_at_least = false;
};

/// One system of a cluster: its backups and WAL.
struct SystemView {
  repository::ClusterPlace place;
  std::vector<BackupInfo> backups;  ///< by stop time
  repository::WalArchive archive;
  WalCoverage coverage;
  ExpiredWal expired;  ///< what is missing on purpose

  /// The history of `timeline`, or of the newest one. Throws Error(wal_missing) if it is not there,
  /// or if a history file is missing that the search for the newest timeline would have to pass.
  postgres::TimelineHistory history(std::optional<postgres::Timeline> timeline) const;
  /// Is the backup on that history, and is the WAL there that makes it consistent?
  bool can_use(const BackupInfo& backup, const postgres::TimelineHistory& history) const;
};

/// The systems of a cluster that have backups, the newest first.
std::vector<SystemView> view_systems(const Site& site, const Catalog& catalog);

/// The windows on one history, by time. Damaged backups begin no window.
std::vector<RecoveryWindow> recovery_windows(const SystemView& system,
                                             const postgres::TimelineHistory& history);

/// "from 2026-... (0/3000100) to 2026-... (0/9000000) on timeline 1": for people.
std::string to_string(const RecoveryWindow& window);
/// Of one that ends in a hole: "WAL is missing behind 0/9000000".
std::string why_it_ends(const RecoveryWindow& window);

}  // namespace holdfast::operations
