#include "operations/gameday.h"

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

struct Options {
  operations::GamedayRequest request;
  std::string contract;
  bool yes = false;
};

json to_json(const operations::GamedayOutcome& outcome) {
  const operations::Evidence& evidence = outcome.evidence;
  return {{"verdict", operations::name_of(evidence.verdict)},
          {"id", evidence.id},
          {"notes", evidence.notes},
          {"rows", checks_json(evidence)},
          {"details", outcome.details},
          {"log", outcome.log.string()},
          {"record", outcome.files.json.string()}};
}

void print(const operations::GamedayOutcome& outcome) {
  const operations::Evidence& evidence = outcome.evidence;
  for (const auto& check : evidence.checks) {
    const bool good = check.outcome == operations::CheckOutcome::passed;
    std::cout << fmt::format("{:<8} {}\n         {}\n",
                             good ? "ok" : operations::name_of(check.outcome), check.name,
                             check.found);
  }
  if (!outcome.details.empty()) std::cout << "\n";
  for (const std::string& detail : outcome.details) std::cout << detail << "\n";
  if (!outcome.log.empty()) {
    std::cout << fmt::format("What the service said: {}\n", outcome.log.string());
  }
  std::cout << fmt::format("\nThe game day's verdict: {}. Record {}: {}\n", loud(evidence.verdict),
                           outcome.files.number, outcome.files.markdown.string());
}

void print_plan(const operations::Contract& contract) {
  std::cout << fmt::format("{}: {}\n", contract.title, contract.url);
  for (const operations::ContractRow& row : contract.rows) {
    std::cout << fmt::format("  {}: {}, {} for {}\n", row.name,
                             fmt::join(row.dependencies, " and "), service::to_string(row.fault),
                             base::to_string_short(row.settle + row.observe));
  }
}

void gameday(Invocation& invocation, const Options& options) {
  const operations::Configuration configuration = invocation.configuration();
  const base::fs::path path = options.contract.empty()
                                  ? configuration.path.parent_path() / "gameday.toml"
                                  : base::fs::path(options.contract);
  if (!base::status_of(path)) {
    throw Error(Code::configuration, fmt::format("could not find a contract: no {}", path.string()),
                "docs/gamedays.md shows one");
  }
  const operations::Contract contract = operations::read_contract(path);
  // What others rely on is not broken by a slip of the finger.
  if (contract.command.empty() && !options.yes) {
    if (!invocation.json) print_plan(contract);
    if (!confirmed("Break these dependencies of a service that runs?")) {
      throw Error(Code::usage, "nothing was broken: this was not confirmed",
                  "say --yes, or answer the question on a terminal");
    }
  }
  base::catch_interrupts();
  std::optional<operations::GamedayOutcome> outcome;
  with_progress(invocation, [&](base::Progress& progress) {
    outcome = operations::run_gameday(configuration, invocation.cluster, contract, options.request,
                                      progress);
  });
  end_with(invocation, outcome->evidence.verdict);
  if (invocation.json) return print_json(invocation, to_json(*outcome));
  print(*outcome);
}

}  // namespace

void add_gameday(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "gameday",
      "Break each dependency of a service on purpose, and hold the service to its contract",
      {Code::check_failed, Code::inconclusive, Code::configuration, Code::unreachable, Code::key},
      [&invocation, options] { gameday(invocation, *options); });
  command->add_option("contract", options->contract,
                      "The contract (default: gameday.toml beside the configuration)");
  command->add_option("--row", options->request.rows, "Only this row (may be repeated)")
      ->type_name("NAME");
  command
      ->add_option("--by", options->request.completed_by,
                   "Who completed it, for the record; by default USER@HOST")
      ->type_name("NAME");
  command->add_flag("--yes", options->yes, "Break a service that runs already without asking");
}

}  // namespace holdfast::cli
