#include "operations/recover.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/workers.h"
#include "operations/cut_over.h"
#include "operations/edge.h"
#include "operations/old_cluster.h"
#include "operations/recovery_plan.h"
#include "operations/recovery_record.h"
#include "operations/restored_cluster.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using Step = RecoveryStep;
using std::chrono::steady_clock;

const std::string ways =
    "When it is mended, `holdfast recover --resume` goes on; `holdfast recover --undo` goes back";

path directory_of(const Configuration& configuration, const std::string& cluster) {
  const path& own = configuration.recover.directory;
  const path directory = own.empty() ? old_place_of(configuration.cluster(cluster)) : own;
  if (!directory.empty()) return directory;
  throw Error(Code::configuration,
              fmt::format("cannot recover {}: it is not known where to restore it", cluster),
              "name a directory: [recover] directory = \"...\"");
}

class RecoveryRun {
 public:
  RecoveryRun(const RecoverWork& work, RecoveryJournal& journal, base::Progress& progress)
      : work_(work),
        context_{work.repositories, journal, progress, work.workers},
        restored_(context_) {}

  RecoverOutcome run(const std::vector<Step>& skip) {
    Recovery& recovery = context_.recovery();
    for (const Step step : skip) leave_out(step);
    for (StepRecord& each : recovery.steps) {
      if (each.ended()) continue;
      take(each);
      if (each.step == Step::reconnect) recovery.serving = base::now();
      context_.journal.save();
    }
    recovery.end = RecoveryEnd::recovered;
    return conclude();
  }

  RecoverOutcome undo();

 private:
  void take(StepRecord& record);
  StepResult act(Step step);
  void leave_out(Step step);
  void take_back(const std::string& name, const std::function<void()>& work);
  void start_old_again();
  RecoverOutcome conclude();

  const RecoverWork& work_;
  RecoveryContext context_;
  RestoredCluster restored_;
};

void RecoveryRun::leave_out(Step step) {
  StepRecord& record = context_.recovery().at(step);
  if (step == Step::target || step == Step::restore || step == Step::replay) {
    base::fail(Code::usage, "cannot skip {}: all that follows needs it", name_of(step));
  }
  if (record.state == StepState::done) return;
  record.state = StepState::skipped;
  record.found = "left out by " + operator_name("");
  context_.journal.save();
}

void RecoveryRun::take(StepRecord& record) {
  record.state = StepState::running;
  record.begun = base::now();
  ++record.tries;
  context_.journal.save();
  work_.show(record);
  const auto begun = steady_clock::now();
  const base::Microseconds limit = context_.settings().limit(record.step);
  const auto stop_clock = [&] {
    record.took += std::chrono::duration_cast<base::Microseconds>(steady_clock::now() - begun);
  };
  const auto fail = [&](const Error& error) {
    record.state = StepState::failed;
    record.found = error.message().substr(0, error.message().find('\n'));
    stop_clock();
    context_.journal.save();
    work_.show(record);
    const std::string& own = error.hint();
    const bool says_how = own.find("--undo") != std::string::npos;
    throw Error(error.code(),
                fmt::format("step {} failed: {}", name_of(record.step), error.message()),
                own.empty() ? ways
                : says_how  ? own
                            : own + ". " + ways);
  };
  // What has a limit of its own in it says better why it did not come to its end.
  constexpr base::Microseconds last_words_time = std::chrono::seconds(2);
  std::optional<base::TimeLimit> time(limit + last_words_time);
  context_.waits_for.clear();
  try {
    const StepResult result = act(record.step);
    record.state = result.skipped ? StepState::skipped : StepState::done;
    record.found = result.found;
  } catch (const Error& error) {
    const bool late = time->is_over();
    time.reset();
    if (late && error.code() == Code::interrupted) {
      const std::string& why = context_.waits_for;
      fail({Code::check_failed,
            fmt::format("it did not end within {}{}{}", base::to_string_short(limit),
                        why.empty() ? "" : ": ", why),
            ways});
    }
    if (error.code() == Code::interrupted) {
      stop_clock();
      context_.journal.save();
      throw Error(Code::interrupted, fmt::format("stopped in step {}", name_of(record.step)),
                  "`holdfast recover --resume` goes on, `holdfast recover --undo` goes back");
    }
    fail(error);
  } catch (const std::exception& error) {
    time.reset();
    fail({Code::internal, error.what()});
  }
  stop_clock();
  context_.journal.save();
  work_.show(record);
}

StepResult RecoveryRun::act(Step step) {
  const RecoverSettings& settings = context_.settings();
  if (only_when_full(step) && !context_.recovery().full) {
    return skipped("the host is not lost (no --full)");
  }
  // These use their commands themselves: there is more to be done than that.
  const bool has_own_way =
      step == Step::start || step == Step::deploy || step == Step::fence || step == Step::reconnect;
  const auto line = settings.command(step);
  if (line && !has_own_way) {
    run_user_command(context_, name_of(step), *line, settings.limit(step));
    return {false, fmt::format("by [recover.command] {}", name_of(step))};
  }
  switch (step) {
    case Step::fence: {
      if (line) run_user_command(context_, name_of(step), *line, settings.limit(step));
      StepResult result = fence_old_cluster(context_);
      if (line) result.found = "by [recover.command] fence; " + result.found;
      return result;
    }
    case Step::target:
      return restored_.choose();
    case Step::secrets:
      return restore_secrets_of_service(context_);
    case Step::files:
      return restore_files_of_service(context_);
    case Step::restore:
      return restored_.restore();
    case Step::replay:
      return restored_.replay();
    case Step::prove:
      return restored_.prove();
    case Step::start:
      return restored_.open();
    case Step::environment:
      return write_environment(context_);
    case Step::deploy:
      return deploy_service(context_);
    case Step::ready:
      return await_ready(context_);
    case Step::proof:
      return prove_cut_over(context_);
    case Step::smoke:
      return pass_smoke(context_);
    case Step::backup:
      return restored_.back_up();
    case Step::reconnect:
      return reconnect_edge(context_);
    case Step::provision:
      break;
  }
  return skipped(fmt::format("there is no [recover.command] {}", name_of(step)));
}

/// Once: what was taken back stays so when the rest is tried again.
void RecoveryRun::take_back(const std::string& name, const std::function<void()>& work) {
  Recovery& recovery = context_.recovery();
  if (std::ranges::find(recovery.undo_done, name) != recovery.undo_done.end()) return;
  context_.progress.begin("taking back: " + name, 0);
  try {
    work();
  } catch (const Error& error) {
    throw error.with_context(fmt::format("could not take back {}", name))
        .with_hint("mend it, then `holdfast recover --undo` again");
  }
  recovery.undo_done.push_back(name);
  context_.journal.save();
}

void RecoveryRun::start_old_again() {
  const Recovery& recovery = context_.recovery();
  if (const auto line = context_.settings().undo_command(Step::fence)) {
    run_user_command(context_, "undo fence", *line, context_.settings().limit(Step::fence));
    return;
  }
  if (!recovery.old_served || !why_it_cannot_start(context_).empty()) return;
  start_server(context_, old_place_of(context_.cluster()), context_.settings().limit(Step::start));
}

RecoverOutcome RecoveryRun::undo() {
  check_undo(context_);
  Recovery& recovery = context_.recovery();
  const RecoverSettings& settings = context_.settings();
  recovery.undoing = true;
  context_.journal.save();
  const auto was_begun = [&](Step step) { return recovery.at(step).begun_once(); };
  // Backwards, so that nobody comes to the restored cluster any more while it is put aside.
  take_back("the edge", [&] { undo_edge(context_); });
  for (const Step step : undone_by_commands) {
    const auto line = settings.undo_command(step);
    if (!line || !was_begun(step)) continue;
    take_back(std::string(name_of(step)),
              [&] { run_user_command(context_, "undo", *line, settings.limit(step)); });
  }
  take_back("environment", [&] {
    if (const auto line = settings.undo_command(Step::environment);
        line && was_begun(Step::environment)) {
      run_user_command(context_, "undo", *line, settings.limit(Step::environment));
    }
    undo_environment(context_);
  });
  take_back("restore", [&] { bring_old_cluster_back(context_); });
  take_back("fence", [&] { start_old_again(); });
  const bool cut_over = was_begun(Step::deploy);
  const auto why_not = why_it_cannot_start(context_);
  const bool has_old =
      (recovery.old_served && why_not.empty()) || settings.undo_command(Step::fence);
  if (cut_over && has_old) {
    take_back("the service's database", [&] { deploy_service(context_); });
    take_back("the service's readiness", [&] { await_ready(context_); });
  }
  recovery.end = RecoveryEnd::undone;
  RecoverOutcome outcome = conclude();
  if (!has_old && !server_process(old_place_of(context_.cluster()))) {
    outcome.notes.push_back(fmt::format("{}, so none runs now; begin anew with `holdfast recover`",
                                        why_not.empty()
                                            ? "no server ran when the recovery began"
                                            : "the old cluster cannot start (" + why_not + ")"));
  }
  return outcome;
}

RecoverOutcome RecoveryRun::conclude() {
  RecoverOutcome outcome;
  // Recorded before it is said to have ended: what dies between the two records it again.
  outcome.files = record_recovery(context_, outcome.evidence);
  context_.journal.save();
  outcome.recovery = context_.recovery();
  const Recovery& recovery = outcome.recovery;
  if (recovery.end == RecoveryEnd::recovered) {
    outcome.rotation = rotation_after(context_);
    const path& configured = context_.cluster().data_directory;
    if (!configured.empty() && recovery.directory != old_place_of(context_.cluster())) {
      outcome.notes.push_back(
          fmt::format("{} still names the old place: set data_directory = \"{}\"{} in [cluster.{}]",
                      context_.configuration().path.string(), recovery.directory.string(),
                      context_.settings().connection.empty() ? "" : " and the new connection",
                      recovery.cluster));
    }
    if (recovery.instant) {
      outcome.notes.push_back(fmt::format(
          "the data still comes in the background: `holdfast mount {0} --status` tells how far it "
          "is; then `holdfast settle {0}`",
          recovery.directory.string()));
    }
    if (!recovery.old_directory.empty()) {
      outcome.notes.push_back(fmt::format(
          "the old cluster stays in {}; remove it when nobody needs it for looking or going back",
          recovery.old_directory.string()));
    }
  }
  return outcome;
}

/// What would be missing in a later step is missed before anything is touched.
void check_request(const std::vector<Configuration>& repositories, const std::string& cluster,
                   const RecoverRequest& request) {
  const RecoverSettings& settings = repositories.front().recover;
  if (!request.full || settings.environment_file.empty() || !request.identity.empty() ||
      settings.command(Step::secrets)) {
    return;
  }
  for (const Configuration& each : repositories) {
    const Site site = open_site(each, cluster);
    if (list_bundles(site).bundles.empty()) continue;
    throw Error(Code::usage, "the service's secrets are sealed: they need an identity to open them",
                "--identity FILE, as age-keygen wrote it");
  }
}

Recovery new_recovery(const std::vector<Configuration>& repositories, const std::string& cluster,
                      const RecoverRequest& request) {
  const Configuration& configuration = repositories.front();
  Recovery recovery;
  recovery.begun = base::now();
  recovery.id = new_evidence_id(recovery.begun);
  recovery.cluster = configuration.cluster(cluster).name;
  recovery.by = operator_name(request.completed_by);
  recovery.request = request.restore;
  recovery.full = request.full;
  recovery.identity = request.identity.empty() ? "" : base::fs::absolute(request.identity).string();
  recovery.instant = request.instant.value_or(configuration.recover.instant);
  recovery.directory = directory_of(configuration, cluster);
  return recovery;
}

/// Throws Error(refused) if it has ended, or goes back already.
void check_resume(const Recovery& recovery) {
  if (recovery.end != RecoveryEnd::open) {
    throw Error(Code::refused,
                fmt::format("recovery {} has ended: it is {}", recovery.id, name_of(recovery.end)),
                "`holdfast recover` begins a new one");
  }
  if (recovery.undoing) {
    throw Error(Code::refused, fmt::format("recovery {} is being undone", recovery.id),
                "`holdfast recover --undo` goes on with that");
  }
}

Recovery last_recovery(const std::vector<Configuration>& repositories, const std::string& cluster) {
  const Configuration& configuration = repositories.front();
  auto all = read_recoveries(configuration.recover.state, configuration.cluster(cluster).name);
  if (!all.empty()) return std::move(all.back());
  throw Error(Code::not_found,
              fmt::format("there is no recovery of {}", configuration.cluster(cluster).name),
              "`holdfast recover` begins one");
}

}  // namespace

RecoveryPlan plan_recovery(const std::vector<Configuration>& repositories,
                           const std::string& cluster, const RecoverRequest& request) {
  check_request(repositories, cluster, request);
  base::Progress progress;
  RecoveryJournal journal =
      RecoveryJournal::only_planned(new_recovery(repositories, cluster, request));
  RecoveryContext context{repositories, journal, progress, 1};
  Prospect prospect = RestoredCluster(context).prospect();
  const RestorePlan& restore = prospect.plan;
  RecoveryPlan plan = planned_steps(
      context, fmt::format("backup {} of {}, to {}", restore.backup.id.text,
                           base::to_string(restore.backup.stopped), to_string(restore.target)));
  plan.obstacles = std::move(prospect.obstacles);
  return plan;
}

RecoveryPlan plan_resume(const std::vector<Configuration>& repositories, const std::string& cluster,
                         const std::vector<RecoveryStep>& skip) {
  base::Progress progress;
  RecoveryJournal journal = RecoveryJournal::only_planned(last_recovery(repositories, cluster));
  check_resume(journal.recovery());
  const RecoveryContext context{repositories, journal, progress, 1};
  const Recovery& recovery = journal.recovery();
  RecoveryPlan plan = planned_steps(
      context, recovery.backup.empty()
                   ? "what was asked for when it began"
                   : fmt::format("backup {}, to {}", recovery.backup, recovery.target));
  std::erase_if(plan.steps,
                [&](const PlannedStep& each) { return recovery.at(each.step).ended(); });
  for (PlannedStep& each : plan.steps) {
    if (std::ranges::find(skip, each.step) == skip.end()) continue;
    each.skipped = true;
  }
  return plan;
}

UndoPlan plan_undo(const std::vector<Configuration>& repositories, const std::string& cluster) {
  base::Progress progress;
  RecoveryJournal journal = RecoveryJournal::only_planned(last_recovery(repositories, cluster));
  const RecoveryContext context{repositories, journal, progress, 1};
  check_undo(context);
  return {journal.recovery().id, undo_actions(context)};
}

RecoverOutcome recover(const RecoverWork& work, const RecoverRequest& request,
                       base::Progress& progress) {
  refuse_for(plan_recovery(work.repositories, work.cluster, request).obstacles);
  RecoveryJournal journal =
      RecoveryJournal::begin(work.repositories.front().recover.state,
                             new_recovery(work.repositories, work.cluster, request));
  return RecoveryRun(work, journal, progress).run({});
}

RecoverOutcome resume_recovery(const RecoverWork& work, const std::vector<RecoveryStep>& skip,
                               const base::fs::path& identity, base::Progress& progress) {
  const Configuration& configuration = work.repositories.front();
  RecoveryJournal journal =
      RecoveryJournal::last(configuration.recover.state, configuration.cluster(work.cluster).name);
  Recovery& recovery = journal.recovery();
  check_resume(recovery);
  if (!identity.empty()) recovery.identity = base::fs::absolute(identity).string();
  return RecoveryRun(work, journal, progress).run(skip);
}

RecoverOutcome undo_recovery(const RecoverWork& work, base::Progress& progress) {
  const Configuration& configuration = work.repositories.front();
  RecoveryJournal journal =
      RecoveryJournal::last(configuration.recover.state, configuration.cluster(work.cluster).name);
  return RecoveryRun(work, journal, progress).undo();
}

}  // namespace holdfast::operations
