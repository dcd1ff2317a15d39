#include "operations/recover.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "cli/verdict.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using operations::PlannedStep;
using operations::Recovery;
using operations::RecoveryPlan;
using operations::StepRecord;
using operations::StepState;

struct Options {
  operations::RecoverRequest request;
  std::string backup;
  std::uint32_t timeline = 0;
  std::string identity;
  std::vector<std::string> skip;
  unsigned workers = 1;
  bool exclusive = false;
  bool instant = false;
  bool plan = false;
  bool resume = false;
  bool undo = false;
  bool yes = false;
};

std::vector<operations::Configuration> repositories_of(const Invocation& invocation) {
  return operations::each_repository(invocation.configuration(), invocation.repositories);
}

void print_plan(const RecoveryPlan& plan) {
  std::cout << "What will be done:\n";
  for (const PlannedStep& each : plan.steps) {
    if (each.skipped) {
      std::cout << fmt::format("  {:<12} -\n", operations::name_of(each.step));
      continue;
    }
    std::cout << fmt::format("  {:<12} {} (within {})\n", operations::name_of(each.step),
                             each.action, base::to_string_short(each.limit));
  }
  for (const auto& each : plan.obstacles) std::cout << "OBSTACLE: " << each.what << "\n";
}

json to_json(const RecoveryPlan& plan) {
  json steps = json::array();
  for (const PlannedStep& each : plan.steps) {
    steps.push_back({{"step", operations::name_of(each.step)},
                     {"skipped", each.skipped},
                     {"action", each.action},
                     {"limit_ms", each.limit.count() / 1000}});
  }
  json obstacles = json::array();
  for (const auto& each : plan.obstacles) {
    obstacles.push_back({{"what", each.what}, {"hint", each.hint}});
  }
  return {{"target", plan.target}, {"steps", steps}, {"obstacles", obstacles}};
}

void print_steps(const Recovery& recovery) {
  for (const StepRecord& each : recovery.steps) {
    const std::string took =
        each.tries == 0 ? "" : fmt::format(" ({})", base::to_string_short(each.took));
    std::cout << fmt::format("  {:<8} {:<12} {}{}\n", operations::name_of(each.state),
                             operations::name_of(each.step), each.found, took);
  }
}

/// How far the one is that has not ended; nullopt if there is none.
std::optional<Recovery> open_recovery(const operations::Configuration& configuration,
                                      const std::string& cluster) {
  auto all =
      operations::read_recoveries(configuration.recover.state, configuration.cluster(cluster).name);
  if (all.empty() || all.back().end != operations::RecoveryEnd::open) return std::nullopt;
  return std::move(all.back());
}

void print_undo(const operations::UndoPlan& plan) {
  std::cout << fmt::format("What going back on recovery {} will do:\n", plan.recovery);
  for (const std::string& each : plan.actions) std::cout << "  " << each << "\n";
}

void plan(Invocation& invocation, const Options& options,
          const std::vector<operations::RecoveryStep>& skip) {
  const auto repositories = repositories_of(invocation);
  if (options.resume) {
    const RecoveryPlan left = operations::plan_resume(repositories, invocation.cluster, skip);
    return invocation.json ? print_json(invocation, to_json(left)) : print_plan(left);
  }
  if (options.undo) {
    const operations::UndoPlan back = operations::plan_undo(repositories, invocation.cluster);
    if (!invocation.json) return print_undo(back);
    return print_json(invocation, {{"recovery", back.recovery}, {"actions", back.actions}});
  }
  if (const auto open = open_recovery(repositories.front(), invocation.cluster)) {
    if (invocation.json) return print_json(invocation, {{"open", operations::to_json(*open)}});
    std::cout << fmt::format("Recovery {} of {}, begun {}, has not ended:\n", open->id,
                             open->cluster, base::to_string(open->begun));
    print_steps(*open);
    std::cout << (open->undoing ? "It is being undone: `holdfast recover --undo` goes on.\n"
                                : "`holdfast recover --resume` goes on, --undo goes back.\n");
    return;
  }
  const RecoveryPlan planned =
      operations::plan_recovery(repositories, invocation.cluster, options.request);
  invocation.json ? print_json(invocation, to_json(planned)) : print_plan(planned);
  operations::refuse_for(planned.obstacles);
}

/// One line for each step, as it ends: in the terminal it is the story of the recovery.
void show(const StepRecord& step) {
  if (step.state == StepState::running) return;
  std::cerr << fmt::format("{:<8} {:<12} {}{}\n", operations::name_of(step.state),
                           operations::name_of(step.step), step.found,
                           step.state == StepState::skipped
                               ? std::string()
                               : fmt::format(" ({})", base::to_string_short(step.took)));
}

json to_json(const operations::RecoverOutcome& outcome) {
  json document = operations::to_json(outcome.recovery);
  json rotation = json::array();
  for (const auto& each : outcome.rotation) {
    rotation.push_back({{"name", each.facts.name}, {"rotate", each.rotate}, {"why", each.why}});
  }
  const auto ms = [](const std::optional<base::Microseconds>& time) {
    return time ? json(time->count() / 1000) : json();
  };
  document["rotation"] = rotation;
  document["notes"] = outcome.notes;
  document["verdict"] = operations::name_of(outcome.evidence.verdict);
  document["rpo_ms"] = ms(outcome.evidence.rpo);
  document["rto_ms"] = ms(outcome.evidence.rto);
  document["record"] = outcome.files.json.string();
  return document;
}

void print(const operations::RecoverOutcome& outcome) {
  const auto text = [](const std::optional<base::Microseconds>& time) {
    return time ? base::to_string_short(*time) : std::string("not measured");
  };
  const operations::Evidence& evidence = outcome.evidence;
  if (outcome.recovery.end == operations::RecoveryEnd::undone) {
    std::cout << "The recovery is undone.\n";
  } else {
    std::cout << fmt::format("Recovered. RPO {}{}, RTO {}\n", text(evidence.rpo),
                             evidence.rpo_how.empty() ? "" : " (" + evidence.rpo_how + ")",
                             text(evidence.rto));
  }
  for (const auto& check : evidence.checks) {
    const bool bad = check.outcome == operations::CheckOutcome::failed ||
                     check.outcome == operations::CheckOutcome::not_run;
    if (bad) {
      std::cout << fmt::format("{:<8} {}: {}\n", operations::name_of(check.outcome), check.name,
                               check.found);
    }
  }
  for (const auto& each : outcome.rotation) {
    if (each.rotate) std::cout << fmt::format("ROTATE   {}: {}\n", each.facts.name, each.why);
  }
  for (const std::string& note : outcome.notes) std::cout << "note:    " << note << "\n";
  std::cout << fmt::format("Record {}: {}\n", outcome.files.number,
                           outcome.files.markdown.string());
}

/// Shows what will be done, and asks, unless it was said that nobody is to be asked.
void confirm(const Options& options, const std::function<void()>& show_plan,
             const std::string& question) {
  if (options.yes) return;
  show_plan();
  std::cout.flush();
  if (confirmed(question)) return;
  throw Error(Code::refused, "nothing was done: this was not confirmed",
              "answer yes on a terminal, or say --yes; --plan only shows what would be done");
}

void run(Invocation& invocation, Options& options) {
  options.request.restore.inclusive = !options.exclusive;
  if (!options.backup.empty()) options.request.restore.backup = options.backup;
  if (options.timeline != 0) {
    options.request.restore.timeline = postgres::Timeline{options.timeline};
  }
  options.request.identity = options.identity;
  if (options.instant) options.request.instant = true;
  std::vector<operations::RecoveryStep> skip;
  for (const std::string& name : options.skip) skip.push_back(*operations::recovery_step(name));
  if (!skip.empty() && !options.resume) {
    throw Error(Code::usage, "--skip is for --resume: a step that failed");
  }
  if (options.plan) return plan(invocation, options, skip);
  const auto repositories = repositories_of(invocation);
  const operations::RecoverWork work{repositories, invocation.cluster, options.workers, show};
  if (options.resume) {
    const RecoveryPlan left = operations::plan_resume(repositories, invocation.cluster, skip);
    confirm(
        options, [&] { print_plan(left); }, "Go on with this recovery now?");
  } else if (options.undo) {
    const operations::UndoPlan back = operations::plan_undo(repositories, invocation.cluster);
    confirm(
        options, [&] { print_undo(back); }, "Go back to the old cluster now?");
  } else {
    const RecoveryPlan planned =
        operations::plan_recovery(repositories, invocation.cluster, options.request);
    confirm(
        options, [&] { print_plan(planned); }, "Recover now?");
  }
  base::catch_interrupts();
  std::optional<operations::RecoverOutcome> outcome;
  with_progress(invocation, [&](base::Progress& progress) {
    outcome = options.resume ? operations::resume_recovery(work, skip, options.identity, progress)
              : options.undo ? operations::undo_recovery(work, progress)
                             : operations::recover(work, options.request, progress);
  });
  // One that is undone proves nothing, and ends well all the same.
  if (!options.undo) end_with(invocation, outcome->evidence.verdict);
  if (invocation.json) return print_json(invocation, to_json(*outcome));
  print(*outcome);
}

void add_target(CLI::App& command, Options& options) {
  command
      .add_option("--to", options.request.restore.to,
                  "What to bring back, as in restore --to; \"latest\" by default. To just before "
                  "an event that `holdfast events` shows: its number, with --exclusive")
      ->type_name("TARGET");
  command.add_flag("--exclusive", options.exclusive, "Stop just before the target");
  command.add_option("--timeline", options.timeline, "Follow this timeline, not the newest")
      ->type_name("N");
  command.add_option("--backup", options.backup, "Begin from this backup")->type_name("ID");
  command
      .add_option("--system", options.request.restore.system,
                  "Which system, if the cluster has several: as for `restore`")
      ->type_name("ID");
}

}  // namespace

void add_recover(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "recover",
      "Do the runbook of a disaster, step by step, until the service serves again",
      {Code::check_failed, Code::refused, Code::outside_window, Code::wal_missing, Code::conflict,
       Code::busy, Code::not_found, Code::key, Code::no_space, Code::interrupted},
      [&invocation, options] { run(invocation, *options); });
  add_target(*command, *options);
  command->add_flag("--full", options->request.full, "The host is lost: secrets and files as well");
  command
      ->add_option("--identity", options->identity,
                   "With --full: the file of age-keygen that opens the sealed secrets")
      ->type_name("FILE");
  command->add_flag("--instant", options->instant,
                    "Mount the backup, so that the service serves at once; the data follows");
  command->add_flag("--plan", options->plan,
                    "Only show what would be done, or how far an open recovery is; with --resume "
                    "or --undo, what that would do");
  auto* resume =
      command->add_flag("--resume", options->resume, "Go on with one that has not ended");
  auto* undo = command->add_flag("--undo", options->undo,
                                 "Go back: the old cluster serves again, the restored one is put "
                                 "aside");
  resume->excludes(undo);
  // What was asked for when it began is in its journal.
  for (const char* name :
       {"--to", "--exclusive", "--timeline", "--backup", "--system", "--full", "--instant"}) {
    resume->excludes(command->get_option(name));
    undo->excludes(command->get_option(name));
  }
  command
      ->add_option("--skip", options->skip,
                   "With --resume: leave out a step; may be repeated, and the record tells it")
      ->type_name("STEP")
      ->check([](const std::string& name) {
        return operations::recovery_step(name) ? std::string() : "there is no such step";
      });
  command->add_option("--by", options->request.completed_by, "Who does it, for the record")
      ->type_name("NAME");
  command->add_flag("--yes", options->yes, "Do not ask");
  add_workers(*command, options->workers);
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
