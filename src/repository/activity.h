#pragma once

// When something was last written for a system, by the store's clock: names and times only.
//
// Of two systems under one cluster's name, the one that was registered later need not be the one
// that serves (an upgrade that was tried and taken back). What is written tells more.

#include <optional>

#include "repository/repository.h"

namespace holdfast::repository {

struct Activity {
  std::optional<base::Timestamp> backup;  ///< when its newest backup was committed
  std::optional<base::Timestamp> wal;     ///< when its newest WAL was stored

  bool any() const { return backup || wal; }
  base::Timestamp last() const;  ///< the beginning of time if there is none
};

/// What cannot be looked at does not count: this orders systems, and proves nothing.
Activity activity_of(store::ObjectStore& store, const ClusterPlace& place);

}  // namespace holdfast::repository
