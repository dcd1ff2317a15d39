#pragma once

// `list`: the backups of a cluster, and what can be restored.

#include <string>
#include <vector>

#include "operations/recovery_window.h"
#include "operations/retention.h"
#include "operations/systems.h"
#include "repository/gaps.h"

namespace holdfast::operations {

struct ListedTimeline {
  postgres::Timeline timeline;
  std::string system_id;
  bool history_missing = false;
};

struct Listing {
  std::vector<KnownSystem> systems;  ///< the one that was written to last is last
  std::vector<BackupInfo> backups;
  std::vector<UnreadableBackup> unreadable;
  std::vector<repository::Pin> pins;    ///< that hold
  std::vector<Decision> decisions;      ///< how each backup is kept by the rules of now
  std::vector<RecoveryWindow> windows;  ///< of each system, on its newest timeline
  std::vector<ListedTimeline> timelines;
  std::vector<repository::Gap> gaps;  ///< WAL that is lost for ever, and breaks, of all systems
  std::vector<std::string> warnings;
};

Listing list(const Site& site);

}  // namespace holdfast::operations
