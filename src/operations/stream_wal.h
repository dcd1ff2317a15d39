#pragma once

// Bringing the WAL that a backup needs into the archive through a replication connection, where no
// data directory can be read and nobody else has archived it yet.

#include <functional>

#include "base/report.h"
#include "postgres/replication.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// The segments of a backup, first to last.
struct NeededWal {
  postgres::SystemId system;
  postgres::Segment first;
  postgres::Segment last;
  postgres::SegmentSize size;
  /// How long the last segment may take to fill up. A primary has ended it; a standby cannot, it
  /// must wait for its primary.
  std::chrono::seconds patience{60};
};

class BackupWal {
 public:
  /// Connects. From now on the server keeps its WAL for us (a temporary slot), if it has a slot
  /// left.
  explicit BackupWal(const std::string& connection);

  /// Stores these segments and the histories of their timeline, and compares those that the archive
  /// has already. Throws Error(wal_missing) if that cannot be done. `meanwhile` is called often and
  /// may throw.
  void store(const repository::WalArchive& archive, const NeededWal& wanted, unsigned workers,
             const std::function<void()>& meanwhile, base::Progress& progress);

 private:
  void store_history(const repository::WalArchive& archive, postgres::Timeline timeline,
                     bool required);
  void receive(const repository::WalArchive& archive, const NeededWal& wanted, unsigned workers,
               const std::function<void()>& meanwhile, base::Progress& progress);

  postgres::Replication replication_;
  std::string slot_;  ///< empty if there is none
};

}  // namespace holdfast::operations
