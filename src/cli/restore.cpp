#include "operations/restore.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"
#include "operations/start_command.h"

namespace holdfast::cli {

namespace {

using base::Code;

struct Options {
  operations::RestoreOptions restore;
  std::string directory;
  std::string backup;
  std::uint32_t timeline = 0;
  bool exclusive = false;
};

constexpr std::string_view not_archiving =
    "It does not archive WAL (archive_mode is off in postgresql.auto.conf) until you set it up\n"
    "with `holdfast doctor --fix`.\n";

void print_instant(const operations::RestoreOutcome& outcome) {
  const std::string directory = outcome.directory.string();
  std::cout << fmt::format(
      "Mounted backup {0} at {1} in {2}: {3} in {4} files, all there at once.\n"
      "Start the server on it; it will recover to {5} on timeline {6}:\n"
      "  {8}\n"
      "{7}"
      "The rest of the data comes in the background: `holdfast mount {1} --status` tells how far\n"
      "it is. After a reboot `holdfast mount {1}` goes on; when all is there `holdfast settle "
      "{1}`\n"
      "makes an ordinary directory of it.\n",
      outcome.plan.backup.id.text, directory, base::to_string_short(outcome.duration),
      base::size_text(outcome.files.bytes), outcome.files.files,
      operations::to_string(outcome.plan.target), outcome.plan.history.timeline().value,
      not_archiving, operations::start_command(outcome.directory));
}

void print(const operations::RestoreOutcome& outcome) {
  if (outcome.instant) return print_instant(outcome);
  std::cout << fmt::format(
      "Restored backup {} into {} in {}: {} in {} files{}\n"
      "Start the server on it; it will recover to {} on timeline {}:\n"
      "  {}\n{}",
      outcome.plan.backup.id.text, outcome.directory.string(),
      base::to_string_short(outcome.duration), base::size_text(outcome.files.bytes),
      outcome.files.files,
      outcome.files.written < outcome.files.bytes
          ? fmt::format(" ({} written)", base::size_text(outcome.files.written))
          : "",
      operations::to_string(outcome.plan.target), outcome.plan.history.timeline().value,
      operations::start_command(outcome.directory), not_archiving);
}

void restore(const Invocation& invocation, Options& options) {
  const auto repositories =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  options.restore.directory = options.directory;
  options.restore.request.inclusive = !options.exclusive;
  if (!options.backup.empty()) options.restore.request.backup = options.backup;
  if (options.timeline != 0)
    options.restore.request.timeline = postgres::Timeline{options.timeline};
  base::catch_interrupts();
  std::optional<operations::RestoreOutcome> outcome;
  with_progress(invocation, [&](base::Progress& progress) {
    outcome =
        operations::restore_from_any(repositories, invocation.cluster, options.restore, progress);
  });
  for (const std::string& note : outcome->notes) std::cerr << "note: " << note << "\n";
  if (!invocation.json) return print(*outcome);
  print_json(invocation, {{"backup", outcome->plan.backup.id.text},
                          {"directory", outcome->directory.string()},
                          {"target", operations::to_string(outcome->plan.target)},
                          {"timeline", outcome->plan.history.timeline().value},
                          {"files", outcome->files.files},
                          {"bytes", outcome->files.bytes},
                          {"written_bytes", outcome->files.written},
                          {"removed_files", outcome->files.removed},
                          {"instant", outcome->instant},
                          {"start", operations::start_command(outcome->directory)},
                          {"duration_ms", outcome->duration.count() / 1000},
                          {"notes", outcome->notes}});
}

}  // namespace

void add_restore(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, invocation, "restore", "Restore a cluster into a directory, to any moment",
                  {Code::outside_window, Code::wal_missing, Code::refused, Code::corrupt, Code::key,
                   Code::no_space, Code::not_found, Code::busy},
                  [&invocation, options] { restore(invocation, *options); });
  command->add_option("directory", options->directory, "An empty directory, or one to be made")
      ->type_name("DIR")
      ->required();
  command
      ->add_option("--to", options->restore.request.to,
                   "\"2026-11-23 08:30:00+00\", an LSN, a transaction number, the name of a "
                   "restore point, \"immediate\" or \"latest\" (the default). time:, lsn:, xid: or "
                   "name: in front leave no doubt")
      ->type_name("TARGET");
  add_repositories(*command, invocation);
  command->add_flag("--exclusive", options->exclusive, "Stop just before the target");
  command->add_option("--timeline", options->timeline, "Follow this timeline, not the newest")
      ->type_name("N");
  command->add_option("--backup", options->backup, "Begin from this backup")->type_name("ID");
  command
      ->add_option("--system", options->restore.request.system,
                   "Which system, if the cluster has several; by default the one in use, or the "
                   "one that had that moment")
      ->type_name("ID");
  command
      ->add_option("--tablespace", options->restore.tablespaces,
                   "Put a tablespace elsewhere; may be repeated")
      ->type_name("OID=DIR");
  command
      ->add_option("--action", options->restore.action,
                   "At the target: promote (the default), pause or shutdown")
      ->type_name("ACTION");
  command->add_flag("--delta", options->restore.delta,
                    "Make a directory right that holds files; keeps what is right, by content");
  command
      ->add_option("--replace-system", options->restore.replace_system,
                   "With --delta: DIR may hold a cluster of this other system, which goes")
      ->type_name("ID");
  command->add_flag("--instant", options->restore.instant,
                    "Mount the backup, so that a server can start at once; the data follows");
  add_workers(*command, options->restore.workers);
}

}  // namespace holdfast::cli
