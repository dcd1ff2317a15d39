#include "operations/recovery_record.h"

#include <algorithm>

#include "base/error.h"
#include "base/seal.h"

namespace holdfast::operations {

namespace {

using base::Error;
using base::fs::path;

EvidenceCheck check_of(const StepRecord& step) {
  EvidenceCheck check{"step " + std::string(name_of(step.step)), CheckOutcome::not_run, step.found};
  if (step.state == StepState::done) check.outcome = CheckOutcome::passed;
  if (step.state == StepState::failed) check.outcome = CheckOutcome::failed;
  if (step.state == StepState::skipped) check.outcome = CheckOutcome::switched_off;
  if (step.tries > 1) check.found += fmt::format(" (at try {})", step.tries);
  return check;
}

void hold_against_objectives(Evidence& evidence) {
  const auto hold = [&](const std::string& name, const std::optional<base::Microseconds>& measured,
                        const std::optional<base::Microseconds>& promised) {
    if (!measured || !promised) return;
    evidence.checks.push_back(
        {name, *measured <= *promised ? CheckOutcome::passed : CheckOutcome::failed,
         fmt::format("{}, where {} is promised", base::to_string_short(*measured),
                     base::to_string_short(*promised))});
  };
  hold("RTO", evidence.rto, evidence.rto_objective);
  // The time since the last commit of a cluster that may have been idle proves no loss.
  if (evidence.rpo_how == "since the last heartbeat") {
    hold("RPO", evidence.rpo, evidence.rpo_objective);
  }
}

}  // namespace

EvidenceFiles record_recovery(const RecoveryContext& context, Evidence& evidence) {
  const Configuration& configuration = context.configuration();
  const Recovery& recovery = context.recovery();
  const base::SigningKey key = base::signing_key_in(configuration.drill.signing_key);
  check_signer(configuration.drill.evidence, key);
  const bool undone = recovery.end == RecoveryEnd::undone;
  evidence.kind = "recovery";
  evidence.at = recovery.begun;
  // Of one that was recovered and then undone there are two.
  evidence.id = recovery.id + (undone ? "-undone" : "");
  evidence.cluster = recovery.cluster;
  evidence.scenario =
      fmt::format("{}{}", recovery.full ? "loss of the host" : "loss of the cluster",
                  undone ? "; the recovery was undone" : "");
  evidence.backup_point = recovery.backup.empty()
                              ? "none was chosen"
                              : fmt::format("backup {} to {}", recovery.backup, recovery.target);
  evidence.environment = fmt::format("production, on {}", host_name());
  evidence.completed_by = recovery.by;
  evidence.controls = controls_of_recoveries();
  evidence.rpo_objective = configuration.objectives.rpo;
  evidence.rto_objective = configuration.objectives.rto;
  evidence.rpo = recovery.rpo;
  evidence.rpo_how = recovery.rpo_how;
  if (recovery.serving) evidence.rto = *recovery.serving - recovery.begun;
  for (const StepRecord& step : recovery.steps) {
    if (step.tries > 0) evidence.steps.push_back({std::string(name_of(step.step)), step.took});
    if (step.state != StepState::pending) evidence.checks.push_back(check_of(step));
  }
  evidence.checks.insert(evidence.checks.end(), recovery.checks.begin(), recovery.checks.end());
  hold_against_objectives(evidence);
  const auto fact = [&](std::string name, std::string value) {
    if (!value.empty()) evidence.facts.emplace_back(std::move(name), std::move(value));
  };
  fact("holdfast", HOLDFAST_VERSION);
  fact("system", recovery.system_id);
  fact("new timeline", recovery.timeline == 0 ? "" : std::to_string(recovery.timeline));
  fact("it begins at", recovery.lsn);
  fact("old cluster's directory", recovery.old_directory.string());
  fact("backup on the new timeline", recovery.new_backup);
  if (recovery.serving) fact("serving again", base::to_string(*recovery.serving));
  judge(evidence);
  if (undone) {
    evidence.verdict = Verdict::inconclusive;
    evidence.notes = "undone: the old cluster is where it was";
  } else if (evidence.verdict == Verdict::pass) {
    evidence.notes =
        fmt::format("serving again; RPO {}, RTO {}",
                    evidence.rpo ? base::to_string_short(*evidence.rpo) : "not measured",
                    evidence.rto ? base::to_string_short(*evidence.rto) : "not measured");
  }
  const EvidencePlace place = evidence_place(configuration.drill);
  // An earlier try may have died right behind this.
  if (const auto there = finish_evidence(place, key, evidence.id)) return *there;
  return add_evidence(place, key, evidence);
}

std::vector<Rotation> rotation_after(const RecoveryContext& context) {
  for (const Configuration& each : context.repositories) {
    try {
      const Site site = open_site(each, context.recovery().cluster);
      const BundleList list = list_bundles(site);
      if (list.bundles.empty()) continue;
      Incident incident;
      incident.host_lost = context.recovery().full;
      return plan_rotation(list.bundles.back().secrets, incident);
    } catch (const Error& error) {
      context.progress.warn("repository {}: {}", each.repository().name, error.message());
    }
  }
  return {};
}

}  // namespace holdfast::operations
