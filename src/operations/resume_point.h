#pragma once

// Where receiving WAL goes on: decided from what the repository has on the history of the server's
// timeline, not from what a slot or the newest timeline suggest (TRAPS WR1, WR6, WR8 to WR11).

#include <optional>
#include <string>
#include <vector>

#include "operations/wal_coverage.h"
#include "repository/gaps.h"

namespace holdfast::operations {

/// A stretch of a history that the repository does not have.
struct MissingWal {
  postgres::Lsn from;
  postgres::Lsn to;
};

struct ResumePoint {
  postgres::Lsn start;  ///< continue here; at the start of a segment or behind its slices
  /// What then is missing for ever: between the newest backup's WAL and `start`, or the end of all
  /// WAL and `start`.
  std::vector<MissingWal> missing;
  /// The newest backup cannot be brought forward over what is missing.
  bool needs_backup = false;
};

/// The places to go on from, the best first: each that the server does not have any more means that
/// the next one must do. The end of the WAL that follows on the newest backup; the end of all WAL;
/// the slot's position; where the server is now. Never empty.
std::vector<ResumePoint> resume_points(const WalCoverage& coverage,
                                       const std::vector<BackupInfo>& backups,
                                       const postgres::TimelineHistory& history,
                                       std::optional<postgres::Lsn> slot, postgres::Lsn flushed);

}  // namespace holdfast::operations
