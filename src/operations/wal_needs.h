#pragma once

// Which WAL segments the backups of one system need: the one place that knows (TRAPS GC11).

#include <vector>

#include "operations/catalog.h"
#include "operations/wal_coverage.h"

namespace holdfast::operations {

class WalNeeds {
 public:
  /// `onward`: backups that can be brought forward as far as WAL goes, on every history that they
  /// lead to. `own`: backups that are only to be made consistent.
  WalNeeds(const WalCoverage& coverage, std::vector<BackupInfo> onward,
           std::vector<BackupInfo> own);

  /// Also of a .partial or .backup file and of slices: they share their segment's fate.
  bool needs(postgres::Segment segment) const;

 private:
  bool leads_to(const BackupInfo& backup, postgres::Segment segment) const;
  bool is_on_way(const postgres::TimelineHistory& history, postgres::Segment segment) const;

  postgres::SegmentSize size_;
  std::vector<postgres::TimelineHistory> histories_;
  std::vector<BackupInfo> onward_;
  std::vector<BackupInfo> own_;
};

}  // namespace holdfast::operations
