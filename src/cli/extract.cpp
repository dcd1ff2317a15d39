#include "operations/extract.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;
using operations::ExtractOutcome;

struct Options {
  operations::ExtractRequest request;
  std::string backup;
  bool exclusive = false;
};

json to_json(const ExtractOutcome& outcome) {
  json tables = json::array();
  for (const ExtractOutcome::Table& table : outcome.tables) {
    tables.push_back({{"table", table.name}, {"as", table.as}, {"rows", table.rows}});
  }
  return {{"backup", outcome.backup.text},
          {"target", operations::to_string(outcome.target)},
          {"database", outcome.database},
          {"notes", outcome.notes},
          {"tables", tables},
          {"ready_ms", outcome.until_ready.count() / 1000},
          {"duration_ms", outcome.duration.count() / 1000}};
}

/// On stderr: stdout may be the dump.
void print(const ExtractOutcome& outcome, const operations::ExtractRequest& request) {
  for (const ExtractOutcome::Table& table : outcome.tables) {
    std::cerr << fmt::format("{}: {} rows{}\n", table.name, table.rows,
                             table.as == table.name ? "" : ", now called " + table.as);
  }
  std::cerr << fmt::format("Extracted from database {} as of {} in {}{}.\n", outcome.database,
                           operations::to_string(outcome.target),
                           base::to_string_short(outcome.duration),
                           !request.into.empty()   ? ", in one transaction"
                           : request.output != "-" ? " into " + request.output
                                                   : "");
}

void extract(Invocation& invocation, Options& options) {
  options.request.moment.inclusive = !options.exclusive;
  if (!options.backup.empty()) options.request.moment.backup = options.backup;
  if (invocation.json && options.request.into.empty() && options.request.output == "-") {
    throw base::Error(Code::usage, "cannot print both the dump and JSON",
                      "with --json use --output FILE or --into");
  }
  base::catch_interrupts();
  std::optional<ExtractOutcome> outcome;
  const auto repositories =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  with_progress(invocation, [&](base::Progress& progress) {
    for (std::size_t i = 0; !outcome; ++i) {
      try {
        outcome =
            operations::extract(repositories[i], invocation.cluster, options.request, progress);
      } catch (const base::Error& error) {
        const bool of_repository =
            error.code() == Code::unreachable || error.code() == Code::corrupt ||
            error.code() == Code::outside_window || error.code() == Code::wal_missing;
        if (!of_repository || i + 1 == repositories.size()) throw;
        print_failure(repositories[i].repository().name, error);
      }
    }
  });
  for (const std::string& note : outcome->notes) std::cerr << "note: " << note << "\n";
  if (invocation.json) return print_json(invocation, to_json(*outcome));
  print(*outcome, options.request);
}

}  // namespace

void add_extract(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  operations::ExtractRequest& request = options->request;
  CLI::App* command = add_command(
      app, invocation, "extract", "Take tables out of any moment, while production goes on",
      {Code::usage, Code::not_found, Code::outside_window, Code::wal_missing, Code::postgres,
       Code::corrupt, Code::no_space},
      [&invocation, options] { extract(invocation, *options); });
  command->add_option("tables", request.tables, "Tables, views or sequences: orders, sales.orders")
      ->type_name("TABLE");
  command->add_option("--schema", request.schemas, "All of a schema; may be repeated")
      ->type_name("NAME");
  command
      ->add_option("--database", request.database,
                   "The database; needed only if several have such a table")
      ->type_name("NAME");
  command->add_flag("--whole-database", request.whole_database, "All of --database");
  command
      ->add_option("--to", request.moment.to,
                   "The moment: as for `restore` (time, LSN, transaction, restore point, latest)")
      ->type_name("TARGET");
  command->add_flag("--exclusive", options->exclusive, "Just before that moment");
  command->add_option("--backup", options->backup, "Begin from this backup")->type_name("ID");
  command
      ->add_option("--system", request.moment.system,
                   "Which system, if the cluster has several: as for `restore`")
      ->type_name("ID");
  CLI::Option* output =
      command->add_option("--output", request.output, "A file for the SQL; - (stdout) by default")
          ->type_name("FILE");
  command
      ->add_option("--into", request.into,
                   "Put it straight into a database (libpq connection string), all or nothing")
      ->type_name("STRING")
      ->excludes(output);
  command->add_option("--as", request.as, "Another name for the one table: orders_before")
      ->type_name("NAME");
  add_repositories(*command, invocation);
  add_workers(*command, request.workers);
}

}  // namespace holdfast::cli
