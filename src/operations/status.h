#pragma once

// `status`: objectives against measurements.
//
// What could not be measured is said to be so; it never counts as zero, nor as held (TRAPS VE6).
// Whether all is well follows from the findings alone (TRAPS DS6).

#include <optional>
#include <string>
#include <vector>

#include "operations/findings.h"

namespace holdfast::operations {

/// What would be lost if the server and its disks were gone now.
struct DataAtRisk {
  /// nullopt: not measured.
  std::optional<base::Microseconds> age;
  std::string how;                             ///< how it was measured, or why not
  std::optional<base::Timestamp> last_commit;  ///< the last one that is in the repository
  postgres::Lsn durable_end;                   ///< the end of the WAL in the repository
  std::optional<postgres::Lsn> server_end;     ///< where the server writes
};

/// A replication slot of the server (pg_replication_slots).
struct SlotState {
  std::string name;
  bool active = false;
  std::string wal_status;  ///< reserved, extended, unreserved, lost; empty if it has reserved none
  std::optional<std::int64_t> safe_wal_size;  ///< bytes until it is lost; nullopt: no limit
};

/// What is promised beside what was measured.
struct Objective {
  std::string name;                ///< "rpo", "rto", "uptime web", "drill", "gameday"
  bool is_share = false;           ///< of 1; else seconds
  std::optional<double> target;    ///< nullopt: nothing is promised
  std::optional<double> measured;  ///< nullopt: not measured
  std::optional<bool> held;        ///< nullopt: nothing is promised, or it cannot be told
  std::string how;                 ///< how it was measured, or why not
};

inline double seconds_of(base::Microseconds duration) {
  return static_cast<double>(duration.count()) / 1e6;
}

struct StatusReport {
  std::optional<base::Microseconds> rpo_objective;
  std::vector<Objective> objectives;  ///< the RPO first
  DataAtRisk risk;
  std::optional<BackupInfo> newest_good;
  std::optional<base::Microseconds> newest_good_age;
  std::vector<RecoveryWindow> windows;
  std::vector<SlotState> slots;
  Findings findings;
};

/// With several repositories: adds a finding to those whose WAL ends before that of another one.
void find_those_behind(std::vector<StatusReport>& reports);

StatusReport find_status(const Configuration& configuration, const std::string& cluster);

}  // namespace holdfast::operations
