#include "operations/recovery_window.h"

#include <algorithm>

#include "base/error.h"
#include "operations/wal_end.h"

namespace holdfast::operations {

using base::Code;
using base::Error;
using postgres::Lsn;
using postgres::Timeline;
using postgres::TimelineHistory;

TimelineHistory SystemView::history(std::optional<Timeline> timeline) const {
  if (timeline) {
    if (auto found = coverage.history(*timeline)) return *std::move(found);
    throw Error(Code::wal_missing,
                fmt::format("cannot follow timeline {}: the repository has no {}", timeline->value,
                            postgres::history_file_name(*timeline)),
                "the timelines that can be followed are listed by `holdfast list`");
  }
  const auto missing = coverage.missing_histories();
  if (!missing.empty()) {
    throw Error(
        Code::wal_missing,
        fmt::format("cannot tell which timeline is the newest: {} is missing from the "
                    "repository",
                    postgres::history_file_name(missing.front())),
        "archive it with `holdfast wal push` if a server still has it, or choose a timeline "
        "with --timeline");
  }
  const auto timelines = coverage.timelines();
  return coverage.history(timelines.back()).value();
}

bool SystemView::can_use(const BackupInfo& backup, const TimelineHistory& history) const {
  return history.passes(backup.timeline, backup.stop) &&
         coverage.contiguous_end(history, backup.start) >= backup.stop;
}

std::vector<SystemView> view_systems(const Site& site, const Catalog& catalog) {
  std::vector<SystemView> views;
  std::vector<std::string> systems = site.repository.systems(site.cluster.name);
  std::reverse(systems.begin(), systems.end());
  for (const std::string& system : systems) {
    std::vector<BackupInfo> backups;
    for (const BackupInfo& backup : catalog.backups) {
      if (backup.place.system_id == system) backups.push_back(backup);
    }
    if (backups.empty()) continue;
    const repository::ClusterPlace place{site.cluster.name, system};
    repository::WalArchive archive(site.repository, place);
    WalCoverage coverage(archive, backups.front().segment_size);
    views.push_back({place, std::move(backups), archive, std::move(coverage),
                     ExpiredWal(site.repository, place)});
  }
  return views;
}

std::vector<RecoveryWindow> recovery_windows(const SystemView& system,
                                             const TimelineHistory& history) {
  std::vector<RecoveryWindow> windows;
  Lsn end_of_last;
  for (const BackupInfo& backup : system.backups) {
    if (backup.is_damaged() || !system.can_use(backup, history)) continue;
    const Lsn end = system.coverage.contiguous_end(history, backup.start);
    if (!windows.empty() && end == end_of_last) {
      windows.back().to = std::max(windows.back().to, backup.stopped);
      continue;
    }
    end_of_last = end;
    const WalGlance glance =
        glance_at_wal_end(system.archive, system.coverage, history, backup.stop);
    const WalEnd& wal = glance.end;
    windows.push_back({system.place, history.timeline(), backup.stopped, backup.stop,
                       std::max(backup.stopped, wal.last_commit.value_or(backup.stopped)), wal.lsn,
                       system.coverage.has_segment_behind(history, end) &&
                           !system.expired.explains(history, end, system.coverage.segment_size()),
                       system.coverage.breaks_at(history, end), glance.is_at_least});
  }
  return windows;
}

std::string to_string(const RecoveryWindow& window) {
  return fmt::format("from {} ({}) to {}{} ({}) on timeline {}{}", base::to_string(window.from),
                     postgres::to_string(window.from_lsn), window.is_at_least ? "at least " : "",
                     base::to_string(window.to), postgres::to_string(window.to_lsn),
                     window.timeline.value,
                     window.ends_in_break  ? ", where the server was set back"
                     : window.ends_in_hole ? ", where WAL is missing"
                                           : "");
}

std::string why_it_ends(const RecoveryWindow& window) {
  return fmt::format(
      "{} behind {}",
      window.ends_in_break ? "the server was set back, and its WAL breaks," : "WAL is missing",
      postgres::to_string(window.to_lsn));
}

}  // namespace holdfast::operations
