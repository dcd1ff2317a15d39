#include "operations/drill.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "cli/verdict.h"
#include "operations/evidence_text.h"
#include "operations/heartbeat.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using operations::Evidence;
using operations::EvidenceReport;

struct Options {
  operations::DrillRequest request;
  std::string backup;
  std::string limit;
  std::string key;
  std::string records;
  bool report = false;
};

json milliseconds(const std::optional<base::Microseconds>& duration) {
  return duration ? json(duration->count() / 1000) : json();
}

json to_json(const operations::DrillOutcome& outcome) {
  const Evidence& evidence = outcome.evidence;
  json steps = json::object();
  for (const auto& step : evidence.steps) steps[step.name + "_ms"] = milliseconds(step.took);
  return {{"verdict", operations::name_of(evidence.verdict)},
          {"id", evidence.id},
          {"cluster", evidence.cluster},
          {"backup_point", evidence.backup_point},
          {"notes", evidence.notes},
          {"steps", steps},
          {"checks", checks_json(evidence)},
          {"rpo_ms", milliseconds(evidence.rpo)},
          {"rpo_how", evidence.rpo_how},
          {"rto_ms", milliseconds(evidence.rto)},
          {"details", outcome.details},
          {"sandbox_gaps", outcome.gaps},
          {"refused", outcome.refused},
          {"remains", outcome.remains.string()},
          {"record", outcome.files.json.string()}};
}

void print(const operations::DrillOutcome& outcome) {
  const Evidence& evidence = outcome.evidence;
  for (const auto& check : evidence.checks) {
    const bool good = check.outcome == operations::CheckOutcome::passed;
    std::cout << fmt::format("{:<12} {}: {}\n", good ? "ok" : operations::name_of(check.outcome),
                             check.name, check.found);
  }
  for (const std::string& detail : outcome.details) std::cout << "             " << detail << "\n";
  std::cout << "\n";
  for (const auto& step : evidence.steps) {
    std::cout << fmt::format("{:<12} {}\n", step.name, base::to_string_short(step.took));
  }
  const auto text = [](const std::optional<base::Microseconds>& duration) {
    return duration ? base::to_string_short(*duration) : std::string("not measured");
  };
  std::cout << fmt::format("RPO          {}{}\nRTO          {}\n", text(evidence.rpo),
                           evidence.rpo_how.empty() ? "" : " (" + evidence.rpo_how + ")",
                           text(evidence.rto));
  for (const std::string& gap : outcome.gaps) {
    std::cout << "note         not held back by the kernel: " << gap << "\n";
  }
  if (!outcome.refused.empty()) {
    std::cout << fmt::format("note         {} attempts to reach out of the sandbox were refused\n",
                             outcome.refused.size());
  }
  if (!outcome.remains.empty()) {
    std::cout << fmt::format("What is needed to find out why: {}\n", outcome.remains.string());
  }
  std::cout << fmt::format("\nThe drill's verdict: {}. Record {}: {}\n", loud(evidence.verdict),
                           outcome.files.number, outcome.files.markdown.string());
}

void drill(Invocation& invocation, const operations::Configuration& configuration,
           const operations::DrillRequest& request) {
  base::catch_interrupts();
  std::optional<operations::DrillOutcome> outcome;
  with_progress(invocation, [&](base::Progress& progress) {
    outcome = operations::run_drill(configuration, invocation.cluster, request, progress);
  });
  end_with(invocation, outcome->evidence.verdict);
  if (invocation.json) return print_json(invocation, to_json(*outcome));
  print(*outcome);
}

/// What an auditor works with: a directory of records and a public key. He has no configuration.
struct Records {
  base::fs::path directory;
  std::optional<base::Microseconds> drill_every;
  base::VerifyingKey key;
  EvidenceReport report;
};

Records read_records(const Invocation& invocation, const Options& options) {
  operations::EvidencePlace place(options.records);
  std::optional<base::Microseconds> every = operations::Objectives().drill_every;
  if (options.records.empty()) {
    const operations::Configuration configuration = invocation.configuration();
    place = operations::evidence_place(configuration.drill);
    every = configuration.objectives.drill_every;
  }
  base::VerifyingKey key =
      options.key.empty()
          ? operations::key_beside(place.directory)
          : base::VerifyingKey(base::text(base::read_existing_file(options.key)), options.key);
  EvidenceReport report = operations::verify_evidence(place, key);
  return {std::move(place.directory), every, std::move(key), std::move(report)};
}

void verify(Invocation& invocation, const Options& options) {
  const Records found = read_records(invocation, options);
  const EvidenceReport& report = found.report;
  if (!report.ok()) invocation.exit_status = base::info(Code::check_failed).exit_status;
  if (invocation.json) {
    json records = json::array();
    for (const auto& record : report.records) {
      records.push_back({{"number", record.number},
                         {"id", record.evidence.id},
                         {"sha256", record.digest},
                         {"verdict", operations::name_of(record.evidence.verdict)}});
    }
    return print_json(invocation, {{"ok", report.ok()},
                                   {"key", found.key.fingerprint()},
                                   {"records", records},
                                   {"problems", report.problems},
                                   {"notes", report.notes}});
  }
  for (const std::string& problem : report.problems) std::cout << "PROBLEM  " << problem << "\n";
  for (const std::string& note : report.notes) std::cout << "note     " << note << "\n";
  std::cout << fmt::format("{} records are signed by key {}{}\n{}\n", report.records.size(),
                           found.key.fingerprint(),
                           options.key.empty() ? ", which lies beside them: --key names one that "
                                                 "you have from elsewhere"
                                               : "",
                           report.ok() ? "The chain is whole." : "The chain is NOT whole.");
}

void report(Invocation& invocation, const Options& options) {
  const Records found = read_records(invocation, options);
  if (!found.report.ok()) invocation.exit_status = base::info(Code::check_failed).exit_status;
  operations::AuditorQuestions questions;
  questions.now = base::now();
  questions.drill_every = found.drill_every;
  questions.cluster = invocation.cluster;
  questions.key = found.key.fingerprint();
  const std::string page = operations::auditor_page(found.report, questions);
  if (invocation.json) return print_json(invocation, {{"ok", found.report.ok()}, {"page", page}});
  std::cout << page;
}

void write_beat(Invocation& invocation) {
  const operations::Configuration configuration = invocation.configuration();
  if (configuration.drill.heartbeat.empty()) {
    throw Error(Code::configuration, "no heartbeat table is configured",
                "set [drill] heartbeat = \"database.schema.table\"");
  }
  const base::Timestamp at =
      operations::beat(configuration.cluster(invocation.cluster).connection,
                       operations::parse_heartbeat(configuration.drill.heartbeat));
  if (invocation.json) return print_json(invocation, {{"beat", base::to_iso(at)}});
  std::cout << fmt::format("{}\n", base::to_string(at));
}

void run(Invocation& invocation, Options& options) {
  if (options.report) return report(invocation, options);
  if (!options.backup.empty()) options.request.backup = options.backup;
  if (!options.limit.empty()) {
    options.request.limit =
        std::chrono::duration_cast<std::chrono::seconds>(base::parse_duration(options.limit));
  }
  for_each_repository(invocation, [&](const operations::Configuration& each) {
    drill(invocation, each, options.request);
  });
}

void add_parts(CLI::App& command, Invocation& invocation, const std::shared_ptr<Options>& options) {
  const auto add_key = [&](CLI::App& part) {
    part.add_option("--key", options->key,
                    "The public key; by default the one that lies with the records")
        ->type_name("FILE");
    part.add_option("--records", options->records,
                    "The directory of records; then no configuration is needed")
        ->type_name("DIR");
  };
  add_key(*add_command(command, invocation, "verify",
                       "Check the records of drills: none changed, none missing, in order",
                       {Code::check_failed, Code::key, Code::not_found},
                       [&invocation, options] { verify(invocation, *options); }));
  add_key(*add_command(command, invocation, "report", "One page for an auditor, as Markdown",
                       {Code::check_failed, Code::key, Code::not_found},
                       [&invocation, options] { report(invocation, *options); }));
  add_command(command, invocation, "beat",
              "Write the heartbeat by which drills measure RPO; for cron",
              {Code::configuration, Code::unreachable, Code::permission},
              [&invocation] { write_beat(invocation); });
}

}  // namespace

void add_drill(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "drill", "Restore into a scratch place, start, check, time, record, remove",
      {Code::check_failed, Code::inconclusive, Code::configuration, Code::key}, [] {});
  command->callback([&invocation, options, command] {
    if (command->get_subcommands().empty()) run(invocation, *options);
  });
  add_parts(*command, invocation, options);
  CLI::Option* to = command->add_option(
      "--to", options->request.to, "What to bring back, as in `restore`; \"latest\" by default");
  to->type_name("TARGET");
  command
      ->add_flag("--random", options->request.random,
                 "A random moment of the recovery window instead")
      ->excludes(to);
  command->add_option("--backup", options->backup, "Begin from this backup")->type_name("ID");
  command
      ->add_option("--system", options->request.system,
                   "Which system, if the cluster has several: as for `restore`")
      ->type_name("ID");
  command->add_flag("--full", options->request.full,
                    "Check every page, table and index instead of samples");
  command->add_flag("--keep", options->request.keep, "Leave the restored files where they are");
  command->add_flag("--report", options->report, "The same as `drill report`");
  command
      ->add_option("--by", options->request.completed_by,
                   "Who completed it, for the record; by default USER@HOST")
      ->type_name("NAME");
  command->add_option("--limit", options->limit, "How long recovery may take (\"4h\")")
      ->type_name("DURATION");
  add_repositories(*command, invocation);
  add_workers(*command, options->request.workers);
}

}  // namespace holdfast::cli
