#include "operations/restore_plan.h"

#include <algorithm>

#include "base/error.h"
#include "operations/systems.h"
#include "operations/wal_end.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using postgres::TimelineHistory;
using Kind = RecoveryTarget::Kind;

std::string describe_windows(const SystemView& system, const TimelineHistory& history) {
  std::string text;
  for (const RecoveryWindow& window : recovery_windows(system, history)) {
    text += (text.empty() ? "the recovery window is " : "; and ") + to_string(window);
  }
  return text.empty() ? "there is no recovery window" : text;
}

/// Finds the backup for one target on one system. Each function answers nullopt if this system has
/// no backup for it, so that an older one may be asked.
class Chooser {
 public:
  Chooser(const SystemView& system, const TimelineHistory& history, const RestoreRequest& request,
          const RecoveryTarget& target)
      : system_(system), history_(history), request_(request), target_(target) {}

  /// One that may lack rows only serves where no other reaches the target. ("immediate" is the
  /// newest one, whatever it is.)
  std::optional<RestorePlan> choose() {
    const bool free = !request_.backup && target_.kind != Kind::immediate;
    if (free && std::ranges::any_of(system_.backups, &BackupInfo::is_suspect)) {
      if (auto plan = choose_without_suspects()) return plan;
    }
    return choose_from(true);
  }

 private:
  /// Why these do not serve is no reason to refuse what the others do.
  std::optional<RestorePlan> choose_without_suspects() {
    try {
      return choose_from(false);
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      return std::nullopt;
    }
  }

  std::optional<RestorePlan> choose_from(bool suspects) {
    const bool named = request_.backup.has_value();
    candidates_.clear();
    for (const BackupInfo& backup : system_.backups) {
      if (named && backup.id.text != *request_.backup) continue;
      if (!named && (backup.is_damaged() || (backup.is_suspect() && !suspects))) continue;
      if (named && !history_.passes(backup.timeline, backup.stop)) refuse_fork(backup);
      if (system_.can_use(backup, history_)) candidates_.push_back(&backup);
    }
    if (candidates_.empty()) return std::nullopt;
    switch (target_.kind) {
      case Kind::latest:
        return latest();
      case Kind::immediate:
        return plan(*candidates_.back());
      case Kind::time:
        return at_time();
      case Kind::lsn:
        return at_lsn();
      case Kind::transaction:
      case Kind::name:
        return at_event();
    }
    return std::nullopt;
  }

  /// TRAPS WF13: a timeline that was left before the backup ended does not contain it.
  [[noreturn]] void refuse_fork(const BackupInfo& backup) const {
    throw Error(
        Code::outside_window,
        fmt::format("cannot bring backup {} to timeline {}: it ended on timeline {} at {}, but "
                    "timeline {} left that one before",
                    backup.id.text, history_.timeline().value, backup.timeline.value,
                    postgres::to_string(backup.stop), history_.timeline().value),
        fmt::format("use --timeline {}", backup.timeline.value));
  }

  RestorePlan plan(const BackupInfo& backup) const {
    return {backup, target_, history_, false, {}};
  }

  Lsn end_of(const BackupInfo& backup) const {
    return system_.coverage.contiguous_end(history_, backup.start);
  }

  RestorePlan latest() const {
    const BackupInfo& backup = *candidates_.back();
    const Lsn end = end_of(backup);
    // Recovery would stop at the hole, promote, and call that the end (TRAPS WF3).
    if (system_.coverage.has_segment_behind(history_, end)) {
      const auto hole = postgres::segment_at(
          history_.timeline_of_segment(end.value / system_.coverage.segment_size().bytes,
                                       system_.coverage.segment_size()),
          end, system_.coverage.segment_size());
      const WalEnd wal = find_wal_end(system_.archive, system_.coverage, history_, backup.stop);
      const std::string why =
          system_.coverage.breaks_at(history_, end)
              ? fmt::format(
                    "the WAL behind backup {} ends at {}, and what follows is of a server "
                    "whose storage was set back before",
                    backup.id.text, postgres::to_string(end))
              : fmt::format("segment {} is missing, and there is WAL behind it",
                            postgres::file_name(hole, system_.coverage.segment_size()));
      throw Error(Code::wal_missing, "cannot restore to the end of WAL: " + why,
                  wal.last_commit && *wal.last_commit > backup.stopped
                      ? fmt::format("`--to \"{}\"` restores to just before the hole",
                                    base::to_string(*wal.last_commit - base::Microseconds(1)))
                      : "`--to immediate` restores the backup itself");
    }
    return plan(backup);
  }

  /// The newest backup that satisfies `fits`.
  template <typename Fits>
  const BackupInfo* newest(Fits fits) const {
    for (auto each = candidates_.rbegin(); each != candidates_.rend(); ++each) {
      if (fits(**each)) return *each;
    }
    return nullptr;
  }

  /// Where the WAL ends that follows on a backup. If a segment on the way back from the end is
  /// corrupt, an earlier target can still be reached: nullopt if reading forward shows an event
  /// that is `past` the target before it comes to that segment.
  template <typename Past>
  std::optional<WalEnd> end_unless_passed(const BackupInfo& backup, const Past& past) const {
    try {
      return find_wal_end(system_.archive, system_.coverage, history_, backup.stop);
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
    }
    bool passed = false;
    read_events(system_.archive, system_.coverage, history_, backup.stop,
                [&](const postgres::WalEvent& event) {
                  passed = past(event);
                  return !passed;
                });
    if (!passed)
      base::fail(Code::corrupt, "the WAL behind backup {} cannot be read", backup.id.text);
    return std::nullopt;
  }

  std::optional<RestorePlan> at_time() const {
    const BackupInfo* backup =
        newest([&](const BackupInfo& each) { return each.stopped <= target_.time; });
    if (backup == nullptr) return std::nullopt;
    RestorePlan result = plan(*backup);
    const auto end = end_unless_passed(*backup, [&](const postgres::WalEvent& event) {
      return event.kind != postgres::WalEvent::Kind::restore_point && event.time > target_.time;
    });
    if (!end) return result;
    const WalEnd& wal = *end;
    if (wal.last_commit && target_.time < *wal.last_commit) return result;
    // Nothing was committed after it that we know of. That is enough only if we know of nothing
    // else: up to the newest moment that the archive proves.
    const base::Timestamp proven =
        std::max(candidates_.back()->stopped, wal.last_commit.value_or(backup->stopped));
    if (target_.time > proven || system_.coverage.has_segment_behind(history_, end_of(*backup))) {
      return std::nullopt;
    }
    result.replay_everything = true;
    result.notes.push_back(
        "the last commit in the archive is not after this time: all WAL is replayed");
    return result;
  }

  std::optional<RestorePlan> at_lsn() const {
    const BackupInfo* backup =
        newest([&](const BackupInfo& each) { return each.stop <= target_.lsn; });
    if (backup == nullptr || target_.lsn >= end_of(*backup)) return std::nullopt;
    RestorePlan result = plan(*backup);
    const auto end = end_unless_passed(
        *backup, [&](const postgres::WalEvent& event) { return event.start >= target_.lsn; });
    if (!end || target_.lsn < end->lsn) return result;
    if (system_.coverage.has_segment_behind(history_, end_of(*backup))) return std::nullopt;
    result.replay_everything = true;
    result.notes.push_back("no record follows on this LSN in the archive: all WAL is replayed");
    return result;
  }

  /// Looks for the target in the WAL: first in what follows the newest backup, then further back.
  std::optional<RestorePlan> at_event() const {
    std::optional<std::uint64_t> last;
    for (auto each = candidates_.rbegin(); each != candidates_.rend(); ++each) {
      bool found = false;
      read_events(
          system_.archive, system_.coverage, history_, (*each)->stop,
          [&](const postgres::WalEvent& event) {
            found = is_target(event);
            return !found;
          },
          last);
      if (found) return plan(**each);
      last = (*each)->stop.value / system_.coverage.segment_size().bytes + 1;
    }
    return std::nullopt;
  }

  bool is_target(const postgres::WalEvent& event) const {
    if (event.kind == postgres::WalEvent::Kind::restore_point) {
      return target_.kind == Kind::name && event.name == target_.name;
    }
    // PostgreSQL stops at the end of a top-level transaction only (recoveryStopsAfter).
    return target_.kind == Kind::transaction && event.transaction == target_.transaction;
  }

  const SystemView& system_;
  const TimelineHistory& history_;
  const RestoreRequest& request_;
  const RecoveryTarget& target_;
  std::vector<const BackupInfo*> candidates_;
};

void refuse_without_backups(const Site& site, const Catalog& catalog,
                            const RestoreRequest& request) {
  if (request.backup) {
    for (const BackupInfo& backup : catalog.backups) {
      if (backup.id.text == *request.backup) return;
    }
    for (const UnreadableBackup& backup : catalog.unreadable) {
      if (backup.id.text != *request.backup) continue;
      throw Error(Code::corrupt, backup.why, "the backup cannot be trusted; use another one");
    }
    throw Error(
        Code::not_found,
        fmt::format("cannot find backup \"{}\" of cluster {}", *request.backup, site.cluster.name),
        "`holdfast list` shows the backups");
  }
  if (catalog.backups.empty()) {
    throw Error(Code::not_found,
                fmt::format("cannot restore: there is no backup of cluster {} in {}{}",
                            site.cluster.name, site.repository.store().url(),
                            catalog.unreadable.empty() ? "" : " that can be read"),
                "take one with `holdfast backup`");
  }
}

/// A backup whose own WAL cannot be read restores to a directory that no server starts on: better
/// to know before. (WAL behind it is read by whoever asks for it.)
void check_wal_of(const SystemView& system, const RestorePlan& plan) {
  const auto size = system.coverage.segment_size();
  for (std::uint64_t number = plan.backup.start.value / size.bytes;
       number * size.bytes < plan.backup.stop.value; ++number) {
    const auto segment = system.coverage.segment_for(plan.history, number);
    try {
      if (segment) system.archive.get(postgres::file_name(*segment, size));
    } catch (const Error& error) {
      throw Error(error.code(),
                  fmt::format("cannot restore backup {}: {}", plan.backup.id.text, error.message()),
                  "choose another backup with --backup; `holdfast verify` tells which are good");
    }
  }
}

[[noreturn]] void refuse_without_backups_of(const Site& site, const std::string& system) {
  const std::string others = list_systems(site, system);
  throw Error(Code::not_found,
              fmt::format("cannot restore: there is no backup of system {} of cluster {}", system,
                          site.cluster.name),
              "take one with `holdfast backup`" +
                  (others.empty() ? "" : ", or name another system with --system ID: " + others));
}

/// Those among which the target decides: one that is named, that of the named backup, the one in
/// use for what is no moment, else all.
std::vector<const SystemView*> systems_meant(const Site& site, const Catalog& catalog,
                                             const std::vector<SystemView>& systems,
                                             const RestoreRequest& request,
                                             const RecoveryTarget& target) {
  std::string wanted = request.system;
  if (!wanted.empty()) check_known(site, wanted);
  if (request.backup) {
    const auto backup = std::ranges::find(catalog.backups, *request.backup,
                                          [](const BackupInfo& each) { return each.id.text; });
    if (!wanted.empty() && wanted != backup->place.system_id) {
      throw Error(Code::usage,
                  fmt::format("cannot restore backup {} of system {}: it is of system {}",
                              *request.backup, wanted, backup->place.system_id),
                  "leave out --system: the backup says it");
    }
    wanted = backup->place.system_id;
  }
  const bool is_moment = target.kind != Kind::latest && target.kind != Kind::immediate;
  if (wanted.empty() && !is_moment) {
    // Where only one can be restored at all, another one is meant only if that is known.
    wanted = systems.size() == 1 ? known_in_use(site).value_or(systems.front().place.system_id)
                                 : choose_system(site, {});
  }
  std::vector<const SystemView*> meant;
  for (const SystemView& each : systems) {
    if (wanted.empty() || each.place.system_id == wanted) meant.push_back(&each);
  }
  if (meant.empty()) refuse_without_backups_of(site, wanted);
  return meant;
}

/// With the systems that could have been meant as well, for who reads the notes.
void note_system(const Site& site, RestorePlan& plan) {
  if (site.repository.systems(site.cluster.name).size() < 2) return;
  plan.notes.push_back(fmt::format("this is system {}; cluster {} has others: {}",
                                   plan.backup.place.system_id, site.cluster.name,
                                   list_systems(site, plan.backup.place.system_id)));
}

/// The plan of the one system that can get there; nullopt if none can.
std::optional<RestorePlan> plan_on_one(const Site& site,
                                       const std::vector<const SystemView*>& systems,
                                       const RestoreRequest& request,
                                       const RecoveryTarget& target) {
  std::optional<RestorePlan> found;
  for (const SystemView* each : systems) {
    const SystemView& system = *each;
    if (request.timeline && !system.coverage.history(*request.timeline) && systems.size() > 1)
      continue;
    std::optional<RestorePlan> plan;
    try {
      const TimelineHistory history = system.history(request.timeline);
      plan = Chooser(system, history, request, target).choose();
    } catch (const Error& error) {
      if (systems.size() == 1) throw;
      // Not knowing whether this one had that moment is no proof that the other one is meant.
      throw error.with_context(
          fmt::format("system {} (--system names the one that is meant)", system.place.system_id));
    }
    if (plan && found) {
      ask_for_system(site,
                     fmt::format("systems {} and {} both had {}", found->backup.place.system_id,
                                 system.place.system_id, to_string(target)));
    }
    if (!plan) continue;
    check_wal_of(system, *plan);
    found = std::move(plan);
  }
  return found;
}

}  // namespace

RestorePlan plan_restore(const Site& site, const RestoreRequest& request) {
  const Catalog catalog = read_catalog(site);
  refuse_without_backups(site, catalog, request);
  const std::string zone = catalog.backups.empty() ? "UTC" : catalog.backups.back().time_zone;
  RecoveryTarget target = parse_target(request.to, zone);
  target.inclusive = request.inclusive;
  const std::vector<SystemView> all = view_systems(site, catalog);
  const auto systems = systems_meant(site, catalog, all, request, target);
  if (auto plan = plan_on_one(site, systems, request, target)) {
    note_system(site, *plan);
    if (!target.assumed_zone.empty()) {
      plan->notes.push_back(fmt::format("the time was read in the server's zone {}: {}",
                                        target.assumed_zone, base::to_string(target.time)));
    }
    if (plan->backup.is_damaged()) {
      plan->notes.push_back(fmt::format("backup {} holds damaged pages in {} files",
                                        plan->backup.id.text, plan->backup.damaged.size()));
    }
    if (plan->backup.is_suspect()) {
      plan->notes.push_back(
          fmt::format("backup {} is suspect: {}", plan->backup.id.text, plan->backup.suspicion));
    }
    return *std::move(plan);
  }
  std::string window;
  for (const SystemView* system : systems) {
    if (!window.empty()) window += "; of another system of the cluster: ";
    window += describe_windows(*system, system->history(request.timeline));
  }
  throw Error(Code::outside_window,
              fmt::format("cannot restore to {}: {}", to_string(target), window),
              "choose a target in the window; without --to everything is recovered");
}

}  // namespace holdfast::operations
