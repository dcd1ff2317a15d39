#include "operations/resume_point.h"

#include <algorithm>

namespace holdfast::operations {

using postgres::Lsn;
using postgres::TimelineHistory;

std::vector<ResumePoint> resume_points(const WalCoverage& coverage,
                                       const std::vector<BackupInfo>& backups,
                                       const TimelineHistory& history, std::optional<Lsn> slot,
                                       Lsn flushed) {
  const auto segment_start = [&](Lsn lsn) {
    return Lsn{lsn.value - lsn.value % coverage.segment_size().bytes};
  };
  std::optional<Lsn> behind_backup;
  for (const BackupInfo& backup : backups) {  // the newest last
    if (!history.passes(backup.timeline, backup.stop)) continue;
    behind_backup = coverage.contiguous_end(history, backup.start);
  }
  std::optional<Lsn> behind_all;
  if (const auto last = coverage.last_segment(history)) {
    behind_all = coverage.contiguous_end(history, *last);
  }
  std::vector<ResumePoint> points;
  const auto add = [&](Lsn start) {
    if (!points.empty() && start <= points.back().start) return;
    ResumePoint point{start, {}, behind_backup && start > *behind_backup};
    if (point.needs_backup) {
      const Lsn again = coverage.next_segment(history, *behind_backup).value_or(start);
      point.missing.push_back({*behind_backup, std::min(again, start)});
    }
    const bool known = !point.missing.empty() && point.missing[0].to >= start;
    if (behind_all && start > *behind_all && !known) point.missing.push_back({*behind_all, start});
    points.push_back(std::move(point));
  };
  if (behind_backup) add(*behind_backup);
  if (behind_all) add(*behind_all);
  if (slot) add(segment_start(*slot));
  if (points.empty() || segment_start(flushed) > points.back().start) add(segment_start(flushed));
  return points;
}

}  // namespace holdfast::operations
