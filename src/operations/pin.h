#pragma once

// `pin`, `unpin`, `snapshot`: backups that stay whatever the rules say.

#include <string>
#include <vector>

#include "operations/backup.h"
#include "repository/pins.h"

namespace holdfast::operations {

/// Pins a backup of any of the cluster's systems. Throws Error(not_found) if there is none of that
/// id, Error(busy) if `expire` is removing it at this moment.
repository::Pin pin_backup(const Site& site, const std::string& backup, base::Timestamp until,
                           const std::string& reason);

/// Releases all pins that hold the backup; says which. Throws Error(not_found) if none does (TRAPS
/// CC5).
std::vector<repository::Pin> unpin_backup(const Site& site, const std::string& backup);

struct Snapshot {
  BackupInfo backup;
  repository::Pin pin;
};
/// A backup that is pinned as soon as it is there. Until then it is the newest, which `expire`
/// never removes.
Snapshot take_snapshot(const Site& site, const BackupRequest& request, base::Microseconds keep,
                       const std::string& reason, base::Progress& progress);

}  // namespace holdfast::operations
