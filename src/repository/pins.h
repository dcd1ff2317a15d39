#pragma once

// Pins: what keeps a backup whatever the rules say, until a date and for a reason.
//
// pins/BACKUPID/ID makes a pin, pins/BACKUPID/ID-released ends it; neither ever changes. A backup
// may have several. What stands in the way of understanding a pin never ends it: one that cannot
// be read holds until it is released, and a release that cannot be read releases nothing.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

struct Pin {
  BackupId backup;
  std::string id;
  bool readable = true;  ///< if not, the rest is not known
  base::Timestamp made;
  base::Timestamp until;
  std::string reason;

  /// It holds to its very end.
  bool holds_at(base::Timestamp now) const { return !readable || now <= until; }
};

class Pins {
 public:
  Pins(const Repository& repository, ClusterPlace place);

  /// Durable on return. Whether the backup exists is for the caller to see, before and after.
  Pin add(const BackupId& backup, base::Timestamp now, base::Timestamp until,
          const std::string& reason) const;
  void release(const Pin& pin, base::Timestamp now) const;
  /// Those of one backup that were not released, the oldest first, also when they have run out.
  std::vector<Pin> of(const BackupId& backup) const;
  /// The same of all backups.
  std::vector<Pin> all() const;
  /// Removes a pin as if it had never been made: its maker found that it came too late.
  void take_back(const Pin& pin) const;
  /// The names of all objects of a backup's pins, for who removes what is left of it.
  std::vector<std::string> objects_of(const BackupId& backup) const;

 private:
  std::string directory(const BackupId& backup) const;
  bool is_released(const Pin& pin) const;
  /// What both documents of a pin say of whose and which it is.
  nlohmann::json identity(const BackupId& backup, const std::string& pin) const;

  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
