#pragma once

// Which backups are kept, and why. Nothing here reads or deletes anything: facts in, answer out.
//
// A good backup is one that can be restored: no damaged pages, map and WAL there. Only good ones
// count for a rule. Whatever the rules and the clock say, these stay (INV-3):
//   * the newest good backup of the cluster; if there is none, everything;
//   * the same for each of its systems, unless somebody lets that one go;
//   * for each timeline that is written to, a good backup that leads there;
//   * what is pinned, what cannot be judged (`hold`), and what stopped in the future;
//   * a damaged backup that is not older than the oldest good one that keep.backups keeps, or is
//     newer than the newest good one: it may be all there is of those hours.
// Names and order of backups decide nothing (pitfall B40); of equally new ones all are kept.

#include <set>
#include <string>
#include <vector>

#include "operations/catalog.h"
#include "postgres/timeline_history.h"
#include "repository/pins.h"

namespace holdfast::operations {

/// A committed backup, and what is known of it besides.
struct Candidate {
  BackupInfo backup;
  bool usable = true;  ///< its map and its WAL are there
  std::string hold;    ///< why it must stay whatever the rules say; empty: no such reason

  bool good() const { return usable && !backup.is_damaged() && !backup.is_suspect(); }
};

/// A timeline of one system that has WAL of its own.
struct TimelineUse {
  std::string system_id;
  postgres::TimelineHistory history;
  base::Timestamp last_written;  ///< when the last of it arrived
  bool newest = false;           ///< the newest timeline of its system
};

struct RetentionInput {
  std::vector<Candidate> candidates;
  std::vector<repository::Pin> pins;  ///< of all systems; a pin names a backup
  std::vector<TimelineUse> timelines;
  KeepRules rules;
  base::Timestamp now;
  std::set<std::string> let_go{};  ///< systems whose last backups need not stay
};

struct Decision {
  Candidate candidate;
  std::vector<std::string> reasons;  ///< why it is kept; none: it goes
  /// WAL is kept from its start on, along every history that it leads to. If not, only the WAL that
  /// makes it consistent is.
  bool keeps_wal = false;

  const BackupInfo& backup() const { return candidate.backup; }
  bool kept() const { return !reasons.empty(); }
};

/// One decision for each candidate, in their order.
std::vector<Decision> decide_retention(const RetentionInput& input);

}  // namespace holdfast::operations
