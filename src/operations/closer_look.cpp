#include "operations/closer_look.h"

#include <algorithm>

#include "base/error.h"
#include "operations/heartbeat.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using std::chrono::milliseconds;

}  // namespace

std::string Witnesses::superuser() const {
  return own && !own->superuser.empty() ? own->superuser : "postgres";
}

Witnesses read_witnesses(const Site& site, const RestorePlan& plan,
                         const repository::BackupMap& map) {
  Witnesses found;
  found.own = witness_of(map);
  const Catalog catalog = read_catalog(site);
  const BackupInfo* before = nullptr;
  for (const BackupInfo& each : catalog.backups) {
    const bool is_before =
        each.place.system_id == plan.backup.place.system_id && each.stopped < plan.backup.stopped;
    if (is_before && (before == nullptr || each.stopped > before->stopped)) before = &each;
  }
  if (before == nullptr) return found;
  found.previous =
      witness_of(repository::Backups(site.repository, before->place).read_map(before->id));
  found.previous_name = "backup " + before->id.text;
  return found;
}

LookRequest look_at_everything(unsigned workers) {
  LookRequest request;
  request.workers = workers;
  return request;
}

LookRequest look_at_samples(unsigned workers) {
  return {milliseconds(4000), milliseconds(4000), milliseconds(5000), workers};
}

std::vector<Checked> look_closely(const Site& site, ScratchCluster& cluster,
                                  const Witnesses& witnesses, const LookRequest& request,
                                  base::Progress& progress) {
  const DrillConfiguration& settings = site.configuration.drill;
  std::vector<Checked> found;
  const auto add = [&](std::string name, CheckOutcome outcome, std::string what) {
    found.push_back({{std::move(name), outcome, std::move(what)}, {}});
  };
  progress.begin("comparing with the backup's witness", 0);
  if (witnesses.own) {
    found.push_back(check_witness(site, cluster, *witnesses.own));
  } else {
    add("rows and tables of the backup's witness", CheckOutcome::not_run,
        "the backup was taken without a witness");
  }
  CountedTables counted;
  found.push_back(check_tables(cluster, request.tables, counted, progress));
  if (witnesses.own) {
    const Witness* previous = witnesses.previous ? &*witnesses.previous : nullptr;
    found.push_back(check_emptied(counted, {{witnesses.previous_name, previous},
                                            {"the backup's own witness", &*witnesses.own}}));
  }
  found.push_back(check_checksums(cluster, request.checksums, request.workers, progress));
  if (settings.amcheck) {
    found.push_back(check_structures(cluster, request.structures, request.workers, progress));
  } else {
    add("tables and indexes (amcheck)", CheckOutcome::switched_off, "by [drill] amcheck = \"off\"");
  }
  for (const DrillAssertion& assertion : settings.assertions) {
    found.push_back(check_assertion(cluster, assertion));
  }
  return found;
}

Loss measure_loss(const Configuration& configuration, const RecoveryTarget& target,
                  base::Timestamp lost, ScratchCluster& cluster) {
  std::optional<base::Timestamp> wanted;
  if (target.kind == RecoveryTarget::Kind::latest) wanted = lost;
  if (target.kind == RecoveryTarget::Kind::time) wanted = target.time;
  if (!wanted) return {{}, "this target is no moment in time", {}};
  const auto until = [&](base::Timestamp last) {
    return std::max(base::Microseconds(0), *wanted - last);
  };
  if (!configuration.drill.heartbeat.empty()) {
    const HeartbeatTable table = parse_heartbeat(configuration.drill.heartbeat);
    try {
      const auto beat = last_beat(cluster.server().connection(), table);
      if (!beat) throw Error(Code::not_found, "its table is empty");
      return {until(*beat), "since the last heartbeat",
              Checked{{"heartbeat", CheckOutcome::passed,
                       "the last one is of " + base::to_string(*beat)},
                      {}}};
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      return {{},
              "there is no heartbeat",
              Checked{{"heartbeat", CheckOutcome::failed, "there is none in the restored cluster"},
                      {error.message()}}};
    }
  }
  const auto& last = cluster.server().recovered().last_commit;
  if (!last) return {{}, "no commit was replayed", {}};
  return {until(*last), "since the last commit; the cluster may have been idle", {}};
}

}  // namespace holdfast::operations
