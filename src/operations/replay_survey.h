#pragma once

// What the WAL that a restore will replay does besides changing rows: read once, before anything is
// written.
//
// From the backup's start to the target, or to the end of what is archived (slices too), as replay
// on the plan's history would read it. Records that decide nothing here are hopped over; workers
// read stretches of segments at the same time, and each must follow on the one before it. Reading
// ends where replay would: at the target, or where records no longer follow. What comes later, by
// WAL that is archived after the survey, is `wal fetch`'s to refuse (wal_fetch.h).

#include <vector>

#include "operations/restore_plan.h"
#include "postgres/replay_record.h"
#include "repository/page_map.h"

namespace holdfast::operations {

struct ReplaySurvey {
  /// Tablespaces that were created and dropped, in order.
  std::vector<postgres::TablespaceRecord> tablespaces;
  /// The highest that the backup's pg_control or the WAL names: a server that has less stops.
  postgres::ServerLimits limits;
  postgres::Lsn end;             ///< of the last record that was looked at
  bool reached_target = false;   ///< it ended at the target, not at the end of WAL
  std::uint64_t read_bytes = 0;  ///< of WAL
};

/// Throws Error(corrupt) for a segment that cannot be read.
ReplaySurvey survey_replay(const Site& site, const RestorePlan& plan,
                           const repository::BackupMap& map, unsigned workers);

}  // namespace holdfast::operations
