#include "operations/recovery_plan.h"

#include "base/error.h"
#include "operations/edge.h"
#include "operations/old_cluster.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using Step = RecoveryStep;

std::string action_of(const RecoveryContext& context, Step step, const std::string& target) {
  const RecoverSettings& settings = context.settings();
  const Recovery& recovery = context.recovery();
  const auto line = settings.command(step);
  const std::string by = line ? fmt::format("run: {}", *line) : "";
  switch (step) {
    case Step::fence:
      return (line ? by + "; then " : "") + fencing_plan(context);
    case Step::target:
      return target;
    case Step::secrets:
      return line ? by
                  : fmt::format("open the newest bundle into {}",
                                settings.environment_file.string());
    case Step::restore:
      return line ? by
                  : fmt::format("{} {}",
                                recovery.instant ? "mount the backup at" : "write the files to",
                                recovery.directory.string());
    case Step::replay:
      return line ? by : "replay WAL to the target, on a socket of its own";
    case Step::prove:
      return line ? by : "the checks of a drill, sampled";
    case Step::start:
      return line ? by
                  : fmt::format("archive to the repository, and start the server in {}",
                                recovery.directory.string());
    case Step::environment:
      if (line) return by;
      return fmt::format("{} in {} to {}:{}", settings.variable, settings.environment_file.string(),
                         settings.database_host, settings.database_port.value_or(5432));
    case Step::deploy:
      if (line) return by;
      return settings.compose ? fmt::format("compose makes {} anew", settings.compose->service)
                              : fmt::format("restart {}", settings.unit);
    case Step::ready:
      return line ? by : fmt::format("wait until {} answers 200", settings.ready);
    case Step::proof:
      if (line) return by;
      return settings.proof.empty() ? "the service has sessions on the restored cluster"
                                    : fmt::format("{} names the restored cluster", settings.proof);
    case Step::smoke:
      return line ? by : fmt::format("the gate of {}", settings.smoke.string());
    case Step::backup:
      return line ? by : "take a backup on the new timeline";
    case Step::files:
      return line ? by : "what was taken along with backups, where it was";
    case Step::reconnect:
      return settings.edge ? (line ? by + "; then " : "") + edge_plan(*settings.edge) : by;
    case Step::provision:
      return by;
  }
  return by;
}

bool is_left_out(const RecoveryContext& context, Step step) {
  const RecoverSettings& settings = context.settings();
  if (only_when_full(step) && !context.recovery().full) return true;
  if (settings.command(step)) return false;
  switch (step) {
    case Step::provision:
      return true;
    case Step::reconnect:
      return !settings.edge;
    case Step::secrets:
      return settings.environment_file.empty() || context.recovery().identity.empty();
    case Step::environment:
      return settings.environment_file.empty() || settings.database_host.empty();
    case Step::deploy:
      return !settings.compose && settings.unit.empty();
    case Step::ready:
      return settings.ready.empty();
    case Step::proof:
      return settings.proof.empty() && settings.ready.empty() && !settings.compose &&
             settings.unit.empty() && !settings.command(Step::deploy);
    case Step::smoke:
      return settings.smoke.empty();
    default:
      return false;
  }
}

bool restored_serves(const RecoveryContext& context) {
  const path& directory = context.recovery().directory;
  return !old_cluster_is_in_place(context) && server_process(directory).has_value();
}

}  // namespace

bool only_when_full(Step step) {
  return step == Step::provision || step == Step::secrets || step == Step::files;
}

RecoveryPlan planned_steps(const RecoveryContext& context, const std::string& target) {
  RecoveryPlan plan;
  plan.target = target;
  for (std::size_t i = 0; i < recovery_steps; ++i) {
    const Step step = static_cast<Step>(i);
    const bool left_out = is_left_out(context, step);
    plan.steps.push_back({step, left_out ? "" : action_of(context, step, target), left_out,
                          context.settings().limit(step)});
  }
  return plan;
}

std::vector<std::string> undo_actions(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  const RecoverSettings& settings = context.settings();
  std::vector<std::string> actions;
  for (const auto& [part, was] : recovery.edge_before) {
    actions.push_back(fmt::format("set back at Cloudflare: {}", part));
  }
  for (const Step step : undone_by_commands) {
    const auto line = settings.undo_command(step);
    if (line && recovery.at(step).begun_once()) actions.push_back("run: " + *line);
  }
  if (recovery.environment_written) {
    actions.push_back(fmt::format("{} in {} as it was before", settings.variable,
                                  settings.environment_file.string()));
  }
  const path configured = old_place_of(context.cluster());
  if (!old_cluster_is_in_place(context) && base::status_of(recovery.directory)) {
    actions.push_back(fmt::format(
        "{}rename {} to {}.undone-{}{}",
        restored_serves(context) ? "STOP the restored server, which serves; " : "",
        recovery.directory.string(), recovery.directory.string(), recovery.id,
        restored_serves(context) ? ": what was committed there is in it, and not in the old cluster"
                                 : ""));
  }
  if (!recovery.old_directory.empty() && base::status_of(recovery.old_directory)) {
    actions.push_back(
        fmt::format("rename {} to {}", recovery.old_directory.string(), configured.string()));
  }
  const std::string why_not = why_it_cannot_start(context);
  if (const auto line = settings.undo_command(Step::fence)) {
    actions.push_back("run: " + *line);
  } else if (!recovery.old_served) {
    actions.push_back("start nothing: no server ran here when the recovery began");
  } else if (!why_not.empty()) {
    actions.push_back("start nothing: the old cluster cannot start: " + why_not);
  } else {
    actions.push_back("start the old server");
  }
  if (recovery.at(Step::deploy).begun_once() && recovery.old_served) {
    actions.push_back("make the service anew, as in the step deploy");
  }
  return actions;
}

void check_undo(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  if (recovery.end == RecoveryEnd::undone) {
    base::fail(Code::refused, "recovery {} is undone already", recovery.id);
  }
  const std::string why_not = why_it_cannot_start(context);
  if (why_not.empty() || !restored_serves(context)) return;
  throw Error(Code::refused,
              fmt::format("cannot go back: the old cluster cannot start ({}), and the restored one "
                          "serves",
                          why_not),
              fmt::format("nothing was done. To give the restored one up all the same, stop its "
                          "server in {} by hand first",
                          recovery.directory.string()));
}

}  // namespace holdfast::operations
