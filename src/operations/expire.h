#pragma once

// `expire`: removes the backups that the rules let go, and what only they needed (INV-3).
//
// It is planned without a lease, so that somebody can look at the plan. Carrying it out takes the
// lease that backups take, reads everything anew, and removes only backups that were in the plan:
//   1. expired.json beside the backup's backup.json says when it went; then pins are read again;
//      then backup.json goes, and the backup is not listed any more.
//   2. Its map, all that the map refers to, and its WAL stay for a grace: a restore may be under
//      way. A later run removes them.
//   3. WAL that no backup needs: first it is written down what goes (operations/expired_wal.h).
//   4. Packs and shards that no committed or graced backup refers to, and what killed backups left.
// Whatever dies or fails at any point, the next run goes on from there (TRAPS RC9, RC10). If one
// map, shard or backup.json cannot be read, no pack, shard or WAL goes at all (TRAPS GC5); what is
// younger than the grace by the store's own clock never goes.

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/report.h"
#include "operations/retention.h"

namespace holdfast::operations {

struct ExpireRequest {
  /// How long a backup that is gone can still be read.
  base::Microseconds grace = std::chrono::hours(1);
  std::optional<base::Timestamp> now;  ///< for the rules; default: see ExpirePlan::now
  std::chrono::seconds lease_term{60};
  /// Systems whose last good backup need not stay any longer: then the rules alone decide.
  std::set<std::string> let_go{};
};

struct NamedObject {
  std::string name;
  std::uint64_t bytes = 0;
};

/// One timeline's segments, with the partial and backup files and slices that belong to them.
struct TimelineWal {
  postgres::Timeline timeline;
  std::vector<NamedObject> going;  ///< the oldest first
  std::uint64_t kept = 0;          ///< segments that stay,
  std::string first_kept;          ///< from the oldest
  std::string last_kept;           ///< to the newest
};

struct SystemPlan {
  repository::ClusterPlace place;
  std::vector<Decision> decisions;  ///< on each backup, by stop time
  std::vector<TimelineWal> wal;
  std::vector<NamedObject> unreferenced;  ///< packs and shards that can go now
  std::vector<NamedObject> remains;       ///< maps, marks and pins of backups that are long gone
  std::uint64_t later_bytes = 0;          ///< packs and shards that can go when the grace is over

  std::vector<const Decision*> going() const;
};

struct ExpirePlan {
  bool has_rules = true;  ///< without [keep] no backup is ever expired
  std::vector<SystemPlan> systems;
  /// Files that went along with backups ([files.NAME]) and have been there long enough. They go by
  /// no rule but their own, whatever becomes of their backups.
  std::vector<NamedObject> files;
  std::vector<UnreadableBackup> unreadable;
  /// What the rules went by: our clock, but at most a day after the newest backup or WAL.
  base::Timestamp now{};
  /// What cannot be read. While there is any, only backups go; no pack, shard or WAL does.
  std::vector<std::string> problems;

  bool empty() const;           ///< nothing would be removed
  std::uint64_t bytes() const;  ///< that become free at once
};

/// Changes nothing. Throws Error(refused) for a system in `let_go` that is in use, or that may be.
ExpirePlan plan_expire(const Site& site, const ExpireRequest& request);

struct ExpireOutcome {
  std::vector<repository::BackupId> expired;
  std::vector<repository::BackupId> spared;  ///< pinned since they were looked at
  std::uint64_t objects = 0;                 ///< removed
  std::uint64_t bytes = 0;
  std::vector<std::string> problems;
  std::vector<base::Error> failures;  ///< what could not be removed, and stays for the next run
};

/// Removes what `plan` shows, as far as that still holds. Throws Error(busy) while a backup or
/// another expire is running.
/// What cannot be removed is a failure in the outcome.
ExpireOutcome expire(const Site& site, const ExpirePlan& plan, const ExpireRequest& request,
                     base::Progress& progress);

}  // namespace holdfast::operations
