#include "operations/expire.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/workers.h"
#include "operations/expire_survey.h"
#include "operations/expired_wal.h"
#include "operations/files.h"
#include "operations/systems.h"
#include "operations/wal_needs.h"
#include "repository/file_sets.h"
#include "repository/lease.h"
#include "repository/signed_document.h"

namespace holdfast::operations {

namespace {

using base::Timestamp;
using repository::BackupId;

/// What one system can lose, as seen from one moment.
class SystemPlanner {
 public:
  /// `now` is of the store's clock. `preview`: backups that are to go count as gone just now;
  /// otherwise every backup that is committed stays.
  SystemPlanner(const SystemSurvey& system, std::vector<Decision> decisions, Timestamp now,
                const ExpireRequest& request, bool preview)
      : system_(system),
        now_(now),
        grace_(request.grace),
        let_go_(request.let_go.contains(system.place.system_id)),
        preview_(preview) {
    plan_.place = system.place;
    plan_.decisions = std::move(decisions);
  }

  /// `blocked`: something cannot be read, so nothing may go for not being referred to.
  SystemPlan plan(bool blocked) {
    if (blocked) return std::move(plan_);
    plan_wal();
    plan_objects();
    plan_remains();
    return std::move(plan_);
  }

 private:
  bool is_old(Timestamp written) const { return now_ - written >= grace_; }
  bool stays(const Decision& each) const { return each.kept() || !preview_; }
  /// A backup without a map protects nothing: it was half removed before.
  bool is_graced(const GoneBackup& each) const { return !is_old(each.gone) && each.has_map; }
  bool preview_is_graced() const { return grace_ > base::Microseconds(0); }

  void plan_wal() {
    const auto needs = wal_needs();
    // Without a backup, WAL may be that of a server whose first one is still to come; it goes where
    // there were backups, or somebody lets the system go.
    const bool was_left = system_.backups.empty() && (let_go_ || !system_.gone.empty());
    if (!needs && !was_left) return;
    std::map<postgres::Timeline, TimelineWal> timelines;
    for (const WalObject& each : system_.wal) {
      TimelineWal& timeline = timelines[each.timeline];
      timeline.timeline = each.timeline;
      // What is no segment of these sizes is nobody's that we know.
      const bool needed = needs && (!each.segment || needs->needs(*each.segment));
      const bool complete =
          each.is_slice && each.segment && system_.coverage && system_.coverage->has(*each.segment);
      if ((!needed || complete) && is_old(each.object.written)) {
        timeline.going.push_back({each.object.name, each.object.size});
      } else if (each.is_segment) {
        const std::string name = each.object.name.substr(each.object.name.rfind('/') + 1);
        if (timeline.kept++ == 0) timeline.first_kept = name;
        timeline.last_kept = name;
      }
    }
    for (auto& [number, timeline] : timelines) plan_.wal.push_back(std::move(timeline));
  }

  /// nullopt if no backup is left that could need any.
  std::optional<WalNeeds> wal_needs() const {
    if (!system_.coverage) return std::nullopt;
    std::vector<BackupInfo> onward;
    std::vector<BackupInfo> own;
    for (const Decision& each : plan_.decisions) {
      const bool graced = !stays(each) && preview_is_graced();
      if ((stays(each) && (each.keeps_wal || !each.kept())) || graced) {
        onward.push_back(each.backup());
      } else if (stays(each)) {
        own.push_back(each.backup());
      }
    }
    for (const GoneBackup& each : system_.gone) {
      if (is_graced(each)) onward.push_back(each.info.value());
    }
    if (onward.empty() && own.empty()) return std::nullopt;
    return WalNeeds(*system_.coverage, std::move(onward), std::move(own));
  }

  void plan_objects() {
    ObjectSet live;
    ObjectSet graced;
    const auto add = [&](ObjectSet& objects, const BackupId& id) {
      const auto found = system_.references.find(id);
      if (found != system_.references.end()) objects.add(found->second);
    };
    for (const Decision& each : plan_.decisions) {
      if (stays(each)) {
        add(live, each.backup().id);
      } else if (preview_is_graced()) {
        add(graced, each.backup().id);
      }
    }
    for (const GoneBackup& each : system_.gone) {
      if (is_graced(each)) add(graced, each.id);
    }
    live.sort();
    graced.sort();
    const std::size_t directory = system_.place.directory().size() + 1;
    for (const store::ObjectInfo& object : system_.objects) {
      const std::string_view name = std::string_view(object.name).substr(directory);
      if (live.contains(name)) continue;
      if (graced.contains(name)) {
        plan_.later_bytes += object.size;
      } else if (is_old(object.written)) {
        plan_.unreferenced.push_back({object.name, object.size});
      }
    }
  }

  void plan_remains() {
    const auto name = [&](const BackupId& id, std::string_view part) {
      return fmt::format("{}/backups/{}/{}", system_.place.directory(), id.text, part);
    };
    for (const GoneBackup& each : system_.gone) {
      if (is_graced(each)) continue;
      plan_.remains.push_back({name(each.id, "map"), 0});
      plan_.remains.push_back({name(each.id, "expired.json"), 0});
    }
    for (const AbandonedBackup& each : system_.abandoned) {
      if (is_old(each.written)) plan_.remains.push_back({name(each.id, "map"), 0});
    }
    for (const Decision& each : plan_.decisions) {
      if (stays(each) && system_.marked.contains(each.backup().id)) {
        plan_.remains.push_back({name(each.backup().id, "expired.json"), 0});
      }
    }
  }

  const SystemSurvey& system_;
  Timestamp now_;
  base::Microseconds grace_;
  bool let_go_;
  bool preview_;
  SystemPlan plan_;
};

/// What the rules go by when the clock says `clock`: no more than a day after the newest thing in
/// the repository. A clock that jumped into the future must not make everything old; and where
/// nothing arrives any more, nothing replaces what is there.
Timestamp time_of_rules(const RetentionInput& facts, Timestamp clock) {
  std::optional<Timestamp> newest;
  const auto see = [&](Timestamp time) {
    if (time <= clock) newest = std::max(newest.value_or(time), time);
  };
  for (const Candidate& each : facts.candidates) see(each.backup.stopped);
  for (const TimelineUse& each : facts.timelines) see(each.last_written);
  return newest ? std::min(clock, *newest + std::chrono::days(1)) : clock;
}

/// A promise holds that was made when a set was taken, and one that the configuration makes now.
void plan_files(const Site& site, ExpirePlan& plan) {
  for (const FilesSet& each : list_files(site)) {
    if (!each.readable) continue;  // what was promised is not known; `verify` tells
    Timestamp until = each.until;
    for (const FilesConfiguration& files : site.configuration.files) {
      if (files.name == each.name) until = std::max(until, each.taken + files.keep);
    }
    if (plan.now <= until) continue;
    const std::string name = repository::object_of(each.place, {each.backup, each.name});
    const auto object = site.repository.store().stat(name);
    plan.files.push_back({name, object ? object->size : 0});
  }
}

/// Reads a cluster, decides, and plans. `clock` tells the store's time for a system.
ExpirePlan make_plan(const Site& site, const ExpireRequest& request, bool preview,
                     const std::function<Timestamp(const SystemSurvey&)>& clock) {
  ExpirePlan plan;
  const KeepRules& rules = site.configuration.keep;
  plan.has_rules = rules.expire_anything();
  Survey seen = survey(site);
  // A backup whose grace is over protects nothing; its map may name what is gone already.
  const auto is_graced = [&](const SystemSurvey& system, const GoneBackup& each) {
    return each.has_map && clock(system) - each.gone < request.grace;
  };
  read_references(site, seen, is_graced);
  for (const SystemSurvey& system : seen.systems) {
    for (const GoneBackup& each : system.gone) {
      if (each.info || !is_graced(system, each)) continue;
      seen.problems.push_back(
          fmt::format("expired.json of backup {} cannot be read: what it needs is not known until "
                      "its grace is over",
                      each.id.text));
    }
  }
  RetentionInput facts = seen.retention(rules, base::now());
  facts.let_go = request.let_go;
  plan.now = facts.now = request.now.value_or(time_of_rules(facts, facts.now));
  const std::vector<Decision> decisions = decide_retention(facts);
  // A cluster without one good backup may be one whose backups we fail to see (TRAPS GC5).
  const bool any_good =
      std::ranges::any_of(decisions, [](const Decision& each) { return each.candidate.good(); });
  const bool blocked = !seen.problems.empty() || !plan.has_rules || !any_good;
  for (const SystemSurvey& system : seen.systems) {
    std::vector<Decision> own;
    for (const Decision& each : decisions) {
      if (each.backup().place.system_id == system.place.system_id) own.push_back(each);
    }
    plan.systems.push_back(
        SystemPlanner(system, std::move(own), clock(system), request, preview).plan(blocked));
  }
  plan_files(site, plan);
  plan.unreadable = std::move(seen.unreadable);
  plan.problems = std::move(seen.problems);
  return plan;
}

/// One expire being carried out.
class Expiry {
 public:
  Expiry(const Site& site, const ExpireRequest& request, base::Progress& progress)
      : site_(site), store_(site.repository.store()), request_(request), progress_(progress) {
    // The lease of backups: none may run beside us, and begin while we look (INV-3, TRAPS GC4).
    for (const std::string& system : site.repository.systems(site.cluster.name)) {
      leases_.push_back(std::make_unique<repository::Lease>(
          site.repository, repository::ClusterPlace{site.cluster.name, system}, "backup",
          request.lease_term, "expire"));
    }
  }

  ExpireOutcome run(const ExpirePlan& shown) {
    std::set<std::pair<std::string, BackupId>> allowed;
    for (const SystemPlan& system : shown.systems) {
      for (const Decision* each : system.going()) {
        allowed.emplace(system.place.system_id, each->backup().id);
      }
    }
    const ExpirePlan first = plan(true);
    now_ = first.now;
    settle(first);
    for (const SystemPlan& system : first.systems) {
      for (const Decision* each : system.going()) {
        if (!allowed.contains({system.place.system_id, each->backup().id})) continue;
        attempt([&] { retire(each->backup()); });
      }
    }
    const ExpirePlan sweep = plan(false);
    progress_.begin("removing what nothing needs", sweep.bytes());
    for (const SystemPlan& system : sweep.systems) {
      remove_wal(system);
      // A map goes before what it names, and the mark last: until then it says that the rest goes.
      const auto is_map = [](const NamedObject& each) { return each.name.ends_with("/map"); };
      for (const NamedObject& each : system.remains) {
        if (is_map(each)) remove(each);
      }
      for (const NamedObject& each : system.unreferenced) remove(each);
      for (const NamedObject& each : system.remains) {
        if (!is_map(each)) attempt([&] { remove_mark(system.place, each); });
      }
    }
    for (const NamedObject& each : sweep.files) remove(each);
    outcome_.problems = sweep.problems;
    return std::move(outcome_);
  }

 private:
  ExpirePlan plan(bool preview) const {
    return make_plan(site_, request_, preview, [this](const SystemSurvey& system) {
      // Our lease, and marks that we made, are as new as anything: they tell the store's time.
      Timestamp now{};
      for (const auto& object : store_.list(system.place.directory() + "/leases")) {
        now = std::max(now, object.written);
      }
      for (const GoneBackup& each : system.gone) now = std::max(now, each.gone);
      return now;
    });
  }

  /// What stays must be durable before anything goes: its maker may have died right after the
  /// commit, and a power cut would take it.
  void settle(const ExpirePlan& first) const {
    for (const SystemPlan& system : first.systems) {
      for (const Decision& each : system.decisions) {
        const repository::Backups backups(site_.repository, each.backup().place);
        const std::string name = backups.object_name(each.backup().id, "backup.json");
        if (each.kept()) store_.settle(name.substr(0, name.rfind('/')));
      }
    }
  }

  /// TRAPS LC3: before each single removal.
  void check() const {
    base::stop_if_interrupted();
    for (const auto& lease : leases_) lease->check();
  }

  /// What cannot be removed stays, and is said; all else goes on, and the next run tries again.
  void attempt(const std::function<void()>& work) {
    try {
      work();
    } catch (const base::Error& error) {
      using base::Code;
      const bool is_its_own = error.code() == Code::permission || error.code() == Code::io ||
                              error.code() == Code::corrupt;
      if (!is_its_own) throw;
      outcome_.failures.push_back(error);
    }
  }

  void remove(const NamedObject& object) {
    check();
    bool removed = false;
    attempt([&] { removed = store_.remove(object.name); });
    if (!removed) return;
    ++outcome_.objects;
    outcome_.bytes += object.bytes;
    progress_.add(object.bytes);
  }

  void retire(const BackupInfo& backup) {
    const repository::Backups backups(site_.repository, backup.place);
    const std::string mark = backups.object_name(backup.id, "expired.json");
    const nlohmann::json document = {{"id", backup.id.text},
                                     {"expired", base::to_iso(base::now())},
                                     {"backup", to_json(backup)}};
    check();
    store_.remove(mark);  // of a run that died: the grace begins now
    if (!store_.put(mark,
                    base::view(repository::sign(site_.repository, expired_purpose, document)))) {
      base::fail(base::Code::busy, "could not expire backup {}: somebody else is doing that",
                 backup.id.text);
    }
    // Who pins a backup looks for the mark afterwards, and we look for pins after the mark: one of
    // us sees the other (TRAPS GC10).
    const auto pins = repository::Pins(site_.repository, backup.place).of(backup.id);
    check();
    if (std::ranges::any_of(pins, [&](const auto& pin) { return pin.holds_at(now_); })) {
      store_.remove(mark);
      outcome_.spared.push_back(backup.id);
      return;
    }
    store_.remove(backups.object_name(backup.id, "backup.json"));
    outcome_.expired.push_back(backup.id);
  }

  void remove_wal(const SystemPlan& system) {
    ExpiredWal record(site_.repository, system.place);
    std::optional<postgres::SegmentSize> size;
    if (!system.decisions.empty()) size = system.decisions.front().backup().segment_size;
    bool any = false;
    for (const TimelineWal& timeline : system.wal) {
      for (const NamedObject& each : timeline.going) {
        const auto name = postgres::parse_wal_file_name(each.name.substr(each.name.rfind('/') + 1));
        const bool whole = name && name->kind == postgres::WalFileName::Kind::segment;
        const auto segment =
            whole && size ? name->segment(*size) : std::optional<postgres::Segment>();
        if (!segment || record.contains(*segment)) continue;
        record.add(segment->timeline, segment->number, segment->number);
        any = true;
      }
    }
    check();
    if (any) record.write(*size);
    for (const TimelineWal& timeline : system.wal) {
      for (const NamedObject& each : timeline.going) remove(each);
    }
  }

  /// With the pins of its backup, if that is gone.
  void remove_mark(const repository::ClusterPlace& place, const NamedObject& object) {
    const std::string directory = object.name.substr(0, object.name.rfind('/'));
    const bool is_gone = !store_.stat(directory + "/backup.json");
    if (is_gone && store_.stat(directory + "/map")) return;  // it could not be removed
    const BackupId id{directory.substr(directory.rfind('/') + 1)};
    if (is_gone) {
      for (const auto& pin : repository::Pins(site_.repository, place).objects_of(id)) {
        remove({pin, 0});
      }
    }
    remove(object);
  }

  const Site& site_;
  store::ObjectStore& store_;
  const ExpireRequest& request_;
  base::Progress& progress_;
  std::vector<std::unique_ptr<repository::Lease>> leases_;
  Timestamp now_{};  ///< for the rules
  ExpireOutcome outcome_;
};

}  // namespace

std::vector<const Decision*> SystemPlan::going() const {
  std::vector<const Decision*> found;
  for (const Decision& each : decisions) {
    if (!each.kept()) found.push_back(&each);
  }
  return found;
}

bool ExpirePlan::empty() const {
  return files.empty() && std::ranges::all_of(systems, [](const SystemPlan& system) {
           return system.going().empty() && system.unreferenced.empty() && system.remains.empty() &&
                  std::ranges::all_of(system.wal,
                                      [](const auto& each) { return each.going.empty(); });
         });
}

std::uint64_t ExpirePlan::bytes() const {
  std::uint64_t sum = 0;
  const auto add = [&](const std::vector<NamedObject>& objects) {
    for (const NamedObject& each : objects) sum += each.bytes;
  };
  for (const SystemPlan& system : systems) {
    add(system.unreferenced);
    for (const TimelineWal& timeline : system.wal) add(timeline.going);
  }
  add(files);
  return sum;
}

namespace {

/// Nobody lets the server that runs go; where it cannot be told which one that is, the one that was
/// written to last may be it.
void check_may_go(const Site& site, const std::set<std::string>& let_go) {
  if (let_go.empty()) return;
  for (const std::string& each : let_go) check_known(site, each);
  const auto names = site.repository.systems(site.cluster.name);
  const std::string used = known_in_use(site).value_or(names.back());
  if (!let_go.contains(used)) return;
  throw base::Error(
      base::Code::refused,
      fmt::format("cannot let system {} go: it is in use, or was written to last", used),
      "--let-go is for a system that the cluster has left: " + list_systems(site, used));
}

}  // namespace

ExpirePlan plan_expire(const Site& site, const ExpireRequest& request) {
  check_may_go(site, request.let_go);
  const Timestamp now = base::now();
  return make_plan(site, request, true, [now](const SystemSurvey&) { return now; });
}

ExpireOutcome expire(const Site& site, const ExpirePlan& plan, const ExpireRequest& request,
                     base::Progress& progress) {
  if (!site.configuration.keep.expire_anything() && plan.files.empty()) return {};
  return Expiry(site, request, progress).run(plan);
}

}  // namespace holdfast::operations
