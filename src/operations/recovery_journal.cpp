#include "operations/recovery_journal.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using nlohmann::json;

constexpr const char* file_name = "journal.json";
constexpr std::array<std::string_view, 5> state_names = {"pending", "running", "done", "skipped",
                                                         "failed"};
constexpr std::array<std::string_view, 3> end_names = {"open", "recovered", "undone"};
constexpr std::array<std::string_view, 4> outcome_names = {"passed", "failed", "not run",
                                                           "switched off"};

template <std::size_t count>
std::size_t index_of(const std::array<std::string_view, count>& names, const std::string& name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) base::fail(Code::corrupt, "there is no \"{}\" in a journal", name);
  return static_cast<std::size_t>(found - names.begin());
}

json optional_text(const std::optional<std::string>& text) {
  return text ? json(*text) : json();
}

json to_json(const StepRecord& step) {
  return {{"step", name_of(step.step)},   {"state", name_of(step.state)},
          {"tries", step.tries},          {"begun", base::to_iso(step.begun)},
          {"took_us", step.took.count()}, {"found", step.found}};
}

StepRecord step_of(const json& document) {
  StepRecord step;
  const auto which = recovery_step(document.at("step").get<std::string>());
  if (!which) base::fail(Code::corrupt, "there is no such step: {}", document.at("step").dump());
  step.step = *which;
  step.state = static_cast<StepState>(index_of(state_names, document.at("state")));
  document.at("tries").get_to(step.tries);
  step.begun = base::from_iso(document.at("begun").get<std::string>());
  step.took = base::Microseconds(document.at("took_us").get<std::int64_t>());
  document.at("found").get_to(step.found);
  return step;
}

json request_json(const RestoreRequest& request) {
  return {{"to", request.to},
          {"inclusive", request.inclusive},
          {"timeline", request.timeline ? json(request.timeline->value) : json()},
          {"backup", optional_text(request.backup)},
          {"system", request.system}};
}

RestoreRequest request_of(const json& document) {
  RestoreRequest request;
  document.at("to").get_to(request.to);
  document.at("inclusive").get_to(request.inclusive);
  if (!document.at("timeline").is_null()) {
    request.timeline = postgres::Timeline{document.at("timeline").get<std::uint32_t>()};
  }
  if (!document.at("backup").is_null()) request.backup = document.at("backup").get<std::string>();
  request.system = document.value("system", "");  // older ones have none
  return request;
}

std::vector<std::string> names_of(const path& state) {
  auto names = base::directory_names(state).value_or(std::vector<std::string>{});
  std::erase_if(
      names, [&](const std::string& name) { return !base::status_of(state / name / file_name); });
  return names;
}

Recovery read(const path& directory) {
  try {
    return recovery_of(json::parse(base::text(base::read_existing_file(directory / file_name))));
  } catch (const json::exception& error) {
    base::fail(Code::corrupt, "the journal \"{}\" cannot be read: {}",
               (directory / file_name).string(), error.what());
  }
}

/// One for all recoveries: two at once would fence each other.
base::Fd lock(const path& state) {
  base::make_directories(state);
  base::Fd file = base::open_file(state / "lock", O_RDWR | O_CREAT);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    throw Error(Code::busy, "somebody else works on a recovery at this moment",
                "wait for it; `holdfast recover --plan` shows how far it is");
  }
  return file;
}

}  // namespace

std::string_view name_of(StepState state) {
  return state_names.at(static_cast<std::size_t>(state));
}
std::string_view name_of(RecoveryEnd end) {
  return end_names.at(static_cast<std::size_t>(end));
}

json to_json(const Recovery& recovery) {
  json steps = json::array();
  for (const StepRecord& each : recovery.steps) steps.push_back(to_json(each));
  json checks = json::array();
  for (const EvidenceCheck& each : recovery.checks) {
    checks.push_back(
        {{"name", each.name}, {"outcome", name_of(each.outcome)}, {"found", each.found}});
  }
  return {{"recovery", recovery.id},
          {"cluster", recovery.cluster},
          {"begun", base::to_iso(recovery.begun)},
          {"by", recovery.by},
          {"request", request_json(recovery.request)},
          {"full", recovery.full},
          {"identity", recovery.identity},
          {"steps", steps},
          {"end", name_of(recovery.end)},
          {"undoing", recovery.undoing},
          {"undo_done", recovery.undo_done},
          {"backup", recovery.backup},
          {"system_id", recovery.system_id},
          {"target", recovery.target},
          {"directory", recovery.directory.string()},
          {"old_directory", recovery.old_directory.string()},
          {"old_served", recovery.old_served},
          {"old_system", recovery.old_system},
          {"instant", recovery.instant},
          {"tablespaces", recovery.tablespaces},
          {"timeline", recovery.timeline},
          {"lsn", recovery.lsn},
          {"serving", recovery.serving ? json(base::to_iso(*recovery.serving)) : json()},
          {"environment_written", recovery.environment_written},
          {"rpo_us", recovery.rpo ? json(recovery.rpo->count()) : json()},
          {"rpo_how", recovery.rpo_how},
          {"checks", checks},
          {"new_backup", recovery.new_backup},
          {"connectors_before",
           recovery.connectors_before ? json(*recovery.connectors_before) : json()},
          {"edge_before", recovery.edge_before}};
}

Recovery recovery_of(const json& document) {
  Recovery recovery;
  document.at("recovery").get_to(recovery.id);
  document.at("cluster").get_to(recovery.cluster);
  recovery.begun = base::from_iso(document.at("begun").get<std::string>());
  document.at("by").get_to(recovery.by);
  recovery.request = request_of(document.at("request"));
  document.at("full").get_to(recovery.full);
  document.at("identity").get_to(recovery.identity);
  for (const json& each : document.at("steps")) recovery.steps.push_back(step_of(each));
  for (std::size_t i = 0; i < recovery.steps.size(); ++i) {
    if (recovery.steps[i].step != static_cast<RecoveryStep>(i)) {
      base::fail(Code::corrupt, "the steps in the journal are not in their order");
    }
  }
  if (recovery.steps.size() != recovery_steps) {
    base::fail(Code::corrupt, "the journal has {} steps", recovery.steps.size());
  }
  recovery.end = static_cast<RecoveryEnd>(index_of(end_names, document.at("end")));
  document.at("undoing").get_to(recovery.undoing);
  document.at("undo_done").get_to(recovery.undo_done);
  document.at("backup").get_to(recovery.backup);
  document.at("system_id").get_to(recovery.system_id);
  document.at("target").get_to(recovery.target);
  recovery.directory = document.at("directory").get<std::string>();
  recovery.old_directory = document.at("old_directory").get<std::string>();
  document.at("old_served").get_to(recovery.old_served);
  recovery.old_system = document.value("old_system", "");  // older ones have none
  document.at("instant").get_to(recovery.instant);
  document.at("tablespaces").get_to(recovery.tablespaces);
  document.at("timeline").get_to(recovery.timeline);
  document.at("lsn").get_to(recovery.lsn);
  if (!document.at("serving").is_null()) {
    recovery.serving = base::from_iso(document.at("serving").get<std::string>());
  }
  document.at("environment_written").get_to(recovery.environment_written);
  if (!document.at("rpo_us").is_null()) {
    recovery.rpo = base::Microseconds(document.at("rpo_us").get<std::int64_t>());
  }
  document.at("rpo_how").get_to(recovery.rpo_how);
  for (const json& each : document.at("checks")) {
    recovery.checks.push_back(
        {each.at("name"), static_cast<CheckOutcome>(index_of(outcome_names, each.at("outcome"))),
         each.at("found")});
  }
  document.at("new_backup").get_to(recovery.new_backup);
  if (!document.at("connectors_before").is_null()) {
    recovery.connectors_before = document.at("connectors_before").get<std::vector<std::string>>();
  }
  document.at("edge_before").get_to(recovery.edge_before);
  return recovery;
}

RecoveryJournal RecoveryJournal::begin(const path& state, Recovery recovery) {
  base::Fd held = lock(state);
  const auto before = read_recoveries(state, recovery.cluster);
  if (!before.empty() && before.back().end == RecoveryEnd::open) {
    throw Error(Code::conflict,
                fmt::format("recovery {} of {} has not ended", before.back().id, recovery.cluster),
                "`holdfast recover --resume` goes on with it, `holdfast recover --undo` goes back");
  }
  recovery.steps.clear();
  for (std::size_t i = 0; i < recovery_steps; ++i) {
    StepRecord step;
    step.step = static_cast<RecoveryStep>(i);
    recovery.steps.push_back(step);
  }
  const path directory = state / recovery.id;
  base::make_directories(directory);
  RecoveryJournal journal(std::move(held), directory, std::move(recovery));
  journal.save();
  return journal;
}

RecoveryJournal RecoveryJournal::last(const path& state, const std::string& cluster) {
  base::Fd held = lock(state);
  auto all = read_recoveries(state, cluster);
  if (all.empty()) {
    throw Error(Code::not_found, fmt::format("there is no recovery of {}", cluster),
                "`holdfast recover` begins one");
  }
  const path directory = state / all.back().id;
  return {std::move(held), directory, std::move(all.back())};
}

void RecoveryJournal::save() const {
  base::replace_file(directory_ / file_name, base::view(to_json(recovery_).dump(1) + "\n"));
}

std::vector<Recovery> read_recoveries(const path& state, const std::string& cluster) {
  std::vector<Recovery> all;
  for (const std::string& name : names_of(state)) {
    Recovery each = read(state / name);
    if (each.cluster == cluster) all.push_back(std::move(each));
  }
  std::ranges::sort(all, {}, [](const Recovery& each) {
    return std::make_pair(each.begun, std::string_view(each.id));
  });
  return all;
}

}  // namespace holdfast::operations
