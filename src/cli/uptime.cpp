#include "service/uptime.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using service::MonthUptime;
using service::PlannedWork;

struct Options {
  std::string month;
  std::vector<std::string> planned;
  std::string reason;
};

double minutes(base::Microseconds duration) {
  return static_cast<double>(duration.count()) / 60e6;
}

json to_json(const MonthUptime& month) {
  const std::optional<double> share = month.share();
  return {{"probe", month.probe},
          {"month", service::to_string(month.month)},
          {"from", base::to_iso(month.from)},
          {"to", base::to_iso(month.to)},
          {"uptime", share ? json(*share) : json()},
          {"up_minutes", minutes(month.found.up)},
          {"down_minutes", minutes(month.found.down)},
          {"planned_minutes", minutes(month.found.planned)},
          {"unknown_minutes", minutes(month.unknown)},
          {"budget_minutes", minutes(month.budget)},
          {"budget_left_minutes", minutes(month.left())},
          {"samples", month.found.samples},
          {"failed", month.found.failed},
          {"objective", name_of(month.verdict)}};
}

json to_json(const PlannedWork& work) {
  return {{"from", base::to_iso(work.from)},
          {"to", base::to_iso(work.to)},
          {"reason", work.reason},
          {"declared", base::to_iso(work.declared)},
          {"declared_afterwards", work.declared > work.from}};
}

std::string text(const MonthUptime& month) {
  const std::optional<double> share = month.share();
  return fmt::format(
      "{} {:<16} {:>9}  down {:.1f} min, planned {:.1f} min, unknown {:.1f} min; "
      "{:.1f} of {:.1f} min left: {}\n",
      service::to_string(month.month), month.probe,
      share ? fmt::format("{:.3f} %", *share * 100) : "-", minutes(month.found.down),
      minutes(month.found.planned), minutes(month.unknown), minutes(month.left()),
      minutes(month.budget), name_of(month.verdict));
}

std::string text(const PlannedWork& work) {
  return fmt::format("planned  {} to {}: {}{}\n", base::to_string(work.from),
                     base::to_string(work.to), work.reason,
                     work.declared > work.from ? " (declared afterwards)" : "");
}

void declare(Invocation& invocation, service::ProbeHistory& history, const Options& options) {
  PlannedWork work;
  work.from = base::parse_time(options.planned.at(0), "UTC").time;
  work.to = base::parse_time(options.planned.at(1), "UTC").time;
  work.reason = options.reason;
  work.declared = base::now();
  if (work.reason.empty()) {
    throw Error(Code::usage, "planned work needs a reason", "say it with --reason");
  }
  history.declare(work);
  if (invocation.json) return print_json(invocation, {{"planned", to_json(work)}});
  std::cout << text(work);
}

void report(Invocation& invocation, service::ProbeHistory& history, double objective,
            const Options& options) {
  std::optional<std::chrono::year_month> only;
  if (!options.month.empty()) only = service::parse_month(options.month);
  const auto months = service::uptime_by_month(history, objective, base::now(), only);
  if (months.empty()) {
    throw Error(Code::not_found, "no probe has been recorded for this time",
                "configure [probe.NAME] and run `holdfast probe --watch`");
  }
  base::Timestamp from = base::Timestamp::max();
  base::Timestamp to = base::Timestamp::min();
  int status = 0;
  json document = json::array();
  for (const MonthUptime& each : months) {
    from = std::min(from, each.from);
    to = std::max(to, each.to);
    document.push_back(to_json(each));
    if (!invocation.json) std::cout << text(each);
    if (each.verdict == MonthUptime::Verdict::broken) {
      status = base::info(Code::check_failed).exit_status;
    } else if (each.verdict == MonthUptime::Verdict::unknown && status == 0) {
      status = base::info(Code::inconclusive).exit_status;
    }
  }
  json planned = json::array();
  for (const PlannedWork& each : history.planned(from, to)) {
    planned.push_back(to_json(each));
    if (!invocation.json) std::cout << text(each);
  }
  invocation.exit_status = status;
  if (!invocation.json) {
    std::cout << fmt::format("The objective is {:g} %.\n", objective * 100);
    return;
  }
  print_json(invocation, {{"objective", objective}, {"months", document}, {"planned", planned}});
}

void uptime(Invocation& invocation, const Options& options) {
  const operations::Configuration configuration = invocation.configuration();
  service::ProbeHistory history(configuration.probe_history);
  if (!options.planned.empty()) return declare(invocation, history, options);
  report(invocation, history, configuration.objectives.uptime, options);
}

}  // namespace

void add_uptime(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, invocation, "uptime", "What probes found, by month, against the objective",
                  {Code::check_failed, Code::inconclusive, Code::not_found, Code::refused},
                  [&invocation, options] { uptime(invocation, *options); });
  CLI::Option* month =
      command->add_option("--month", options->month, "Only this month (\"2026-11\")");
  month->type_name("MONTH");
  command
      ->add_option("--planned", options->planned,
                   "Declare planned work from one time to another: it does not count as down")
      ->expected(2)
      ->type_name("FROM TO")
      ->excludes(month);
  command->add_option("--reason", options->reason, "What the planned work is")->type_name("TEXT");
}

}  // namespace holdfast::cli
