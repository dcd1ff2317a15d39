#include "operations/status.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/findings.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;

json seconds(const std::optional<base::Microseconds>& duration) {
  if (!duration) return nullptr;
  return static_cast<double>(duration->count()) / 1e6;
}

json to_json(const operations::StatusReport& report) {
  json slots = json::array();
  for (const operations::SlotState& slot : report.slots) {
    slots.push_back({{"name", slot.name},
                     {"active", slot.active},
                     {"wal_status", slot.wal_status},
                     {"safe_wal_size", slot.safe_wal_size ? json(*slot.safe_wal_size) : json()}});
  }
  const operations::DataAtRisk& risk = report.risk;
  json rpo = {{"objective_s", seconds(report.rpo_objective)},
              {"measured_s", seconds(risk.age)},
              {"how", risk.how},
              {"durable_lsn", postgres::to_string(risk.durable_end)}};
  rpo["last_commit"] = risk.last_commit ? json(base::to_iso(*risk.last_commit)) : json();
  rpo["server_lsn"] = risk.server_end ? json(postgres::to_string(*risk.server_end)) : json();
  json objectives = json::array();
  for (const operations::Objective& each : report.objectives) {
    objectives.push_back({{"name", each.name},
                          {"unit", each.is_share ? "share" : "s"},
                          {"target", each.target ? json(*each.target) : json()},
                          {"measured", each.measured ? json(*each.measured) : json()},
                          {"held", each.held ? json(*each.held) : json()},
                          {"how", each.how}});
  }
  json document = {{"ok", report.findings.ok()},
                   {"objectives", objectives},
                   {"rpo", rpo},
                   {"slots", slots},
                   {"findings", findings_json(report.findings)}};
  document["newest_good_backup"] = nullptr;
  if (report.newest_good) {
    document["newest_good_backup"] = {{"id", report.newest_good->id.text},
                                      {"stopped", base::to_iso(report.newest_good->stopped)},
                                      {"age_s", seconds(report.newest_good_age)}};
  }
  return document;
}

std::string value_text(const operations::Objective& objective, const std::optional<double>& value,
                       std::string_view otherwise) {
  if (!value) return std::string(otherwise);
  if (objective.is_share) return fmt::format("{:.3f} %", *value * 100);
  return base::to_string_short(base::Microseconds(static_cast<std::int64_t>(*value * 1e6)));
}

void print(const operations::StatusReport& report) {
  constexpr std::string_view row = "{:<18} {:>12} {:>14}  {:<7} {}\n";
  std::cout << fmt::format(row, "OBJECTIVE", "TARGET", "MEASURED", "HELD", "");
  for (const operations::Objective& each : report.objectives) {
    std::cout << fmt::format(row, each.name, value_text(each, each.target, "none"),
                             value_text(each, each.measured, "not measured"),
                             each.held     ? *each.held ? "yes" : "NO"
                             : each.target ? "unknown"
                                           : "-",
                             each.how);
  }
  std::cout << "\n";
  print_findings(report.findings);
  for (const operations::SlotState& slot : report.slots) {
    std::cout << fmt::format(
        "slot     {}: {}, {}{}\n", slot.name, slot.active ? "in use" : "idle",
        slot.wal_status.empty() ? "no WAL reserved" : "WAL " + slot.wal_status,
        slot.safe_wal_size ? fmt::format(", {} bytes left", *slot.safe_wal_size) : "");
  }
}

void status(Invocation& invocation) {
  std::vector<operations::StatusReport> reports;
  for (const operations::Configuration& each :
       operations::each_repository(invocation.configuration(), invocation.repositories)) {
    reports.push_back(operations::find_status(each, invocation.cluster));
  }
  operations::find_those_behind(reports);
  auto report = reports.begin();
  for_each_repository(invocation, [&](const operations::Configuration&) {
    if (!report->findings.ok()) invocation.exit_status = base::info(Code::check_failed).exit_status;
    if (invocation.json) {
      print_json(invocation, to_json(*report));
    } else {
      print(*report);
    }
    ++report;
  });
}

}  // namespace

void add_status(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      add_command(app, invocation, "status", "Hold objectives against what is measured",
                  {Code::check_failed, Code::configuration}, [&invocation] { status(invocation); });
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
