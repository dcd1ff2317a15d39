#pragma once

// Deciding what a restore will do, before anything is written.

#include <optional>
#include <string>

#include "operations/recovery_window.h"

namespace holdfast::operations {

/// How far to recover.
struct RecoveryTarget {
  enum class Kind {
    latest,     ///< the end of WAL
    immediate,  ///< as soon as the backup is consistent
    time,
    lsn,
    transaction,
    name,  ///< a restore point made by pg_create_restore_point
  };
  Kind kind = Kind::latest;
  base::Timestamp time;
  postgres::Lsn lsn;
  std::uint32_t transaction = 0;
  std::string name;
  bool inclusive = true;  ///< the target itself is still replayed
  /// Said aloud to the user: the zone that a time without one was read in.
  std::string assumed_zone;
};

/// Reads what a user wrote for --to: "latest", "immediate", an LSN, a transaction number, a time,
/// or the name of a restore point. "time:", "lsn:", "xid:" and "name:" in front leave no doubt.
RecoveryTarget parse_target(std::string_view text, std::string_view default_zone);
/// "the end of WAL", "2026-11-23 08:30:00 UTC", "restore point \"x\"": for people.
std::string to_string(const RecoveryTarget& target);

struct RestoreRequest {
  std::string to = "latest";
  bool inclusive = true;
  std::optional<postgres::Timeline> timeline;  ///< default: the newest
  std::optional<std::string> backup;           ///< default: the newest that can reach the target
  /// Where the cluster has several: default: the one in use (systems.h), or for a moment the one
  /// that had it.
  std::string system;
};

struct RestorePlan {
  BackupInfo backup;
  RecoveryTarget target;
  postgres::TimelineHistory history;
  /// What the server is told to recover to, where that differs from `target`: a moment after the
  /// last commit that is archived is reached by replaying all there is.
  bool replay_everything = false;
  std::vector<std::string> notes;  ///< what the user should hear
};

/// Chooses the backup and proves from the archive that the target can be reached. Throws
/// Error(outside_window) that says what the window is, or Error(wal_missing) for a hole on the way;
/// Error(usage) that lists the systems where it cannot be told which one is meant.
RestorePlan plan_restore(const Site& site, const RestoreRequest& request);

}  // namespace holdfast::operations
