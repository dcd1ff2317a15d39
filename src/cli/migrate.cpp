#include "operations/migrate.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using repository::Migration;

struct Options {
  operations::MigrationRequest request;
  std::string duration;
  std::string within;
  std::string auto_restore;
  bool list = false;
};

/// What a person wants to know of it.
std::string state_of(const operations::JournalEntry& entry) {
  const Migration& migration = entry.migration;
  if (!migration.readable) return "unreadable";
  if (entry.runs) return "running";
  if (!migration.end) return "end unknown";
  return migration.end->status == 0 ? "succeeded"
                                    : fmt::format("failed: {}", migration.end->status);
}

json to_json(const Migration& migration) {
  json document = {{"id", migration.id}, {"readable", migration.readable}};
  if (!migration.readable) return document;
  document.update({{"begun", base::to_iso(migration.begun)},
                   {"backup", migration.backup.text},
                   {"restore_point", migration.restore_point},
                   {"lsn", migration.lsn},
                   {"timeline", migration.timeline},
                   {"commit", migration.commit.empty() ? json() : json(migration.commit)},
                   {"program", migration.program},
                   {"by", migration.by},
                   {"ended", migration.end ? json(base::to_iso(migration.end->at)) : json()},
                   {"status", migration.end ? json(migration.end->status) : json()}});
  return document;
}

void list(Invocation& invocation, const operations::Configuration& configuration) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const auto all = operations::list_migrations(site);
  if (invocation.json) {
    json documents = json::array();
    for (const operations::JournalEntry& each : all) {
      documents.push_back(to_json(each.migration));
      documents.back()["state"] = state_of(each);
    }
    return print_json(invocation, {{"migrations", documents}});
  }
  if (all.empty()) {
    std::cout << fmt::format("No migration of {} was begun by `holdfast migrate`.\n",
                             site.cluster.name);
  }
  for (const operations::JournalEntry& entry : all) {
    const Migration& each = entry.migration;
    std::cout << fmt::format("{}  {}\n", each.id, state_of(entry));
    if (!each.readable) continue;
    std::cout << fmt::format("  {} by {}, commit {}\n  backup {}, restore point {} at {}\n",
                             each.program, each.by, each.commit.empty() ? "unknown" : each.commit,
                             each.backup.text, each.restore_point, each.lsn);
    if (entry.has_unknown_end()) {
      std::cout << "  It was cut off, or its end could not be recorded; what it began may still "
                   "run. The way back:\n  "
                << operations::restore_command(configuration, invocation.cluster, each) << "\n";
    }
  }
}

void say(const std::string& repository, const Error& error) {
  if (repository.empty()) return print_warning(error.message());
  print_failure(repository, error);
}

/// On stderr: stdout is the command's.
void print_started(const std::vector<operations::WayBack>& ways_back) {
  std::cout.flush();
  for (const auto& [repository, migration] : ways_back) {
    std::cerr << fmt::format(
        "Migration {}: snapshot {} is verified and pinned; restore point {} at {} is in repository "
        "{} (commit {})\n",
        migration.id, migration.backup.text, migration.restore_point, migration.lsn, repository,
        migration.commit.empty() ? "unknown" : migration.commit);
  }
}

/// What came after a command that failed.
struct Aftermath {
  int status = 0;
  std::string restore_command;
  std::optional<operations::RestoreOutcome> restored;
  std::optional<Error> not_restored;
};

void print_failed(const Aftermath& outcome, const Migration& migration) {
  std::cerr << fmt::format("holdfast: the migration's command ended with {}\n", outcome.status);
  if (outcome.not_restored) {
    std::cerr << fmt::format("holdfast: could not restore: {}\n", outcome.not_restored->message());
  }
  if (outcome.restored) {
    const std::string directory = outcome.restored->directory.string();
    std::cerr << fmt::format(
        "The state before it is restored in {0}{1}.\nIt remains: stop the writers; start a server "
        "on it (pg_ctl -D {0} start) and look at it; let the\nservice use it; set up archiving "
        "(`holdfast doctor --fix`) and take a backup.\n",
        directory, outcome.restored->instant ? " (mounted; the data follows)" : "");
    return;
  }
  std::cerr << fmt::format(
      "hint: to bring back the state of {}, run\n{}\n"
      "and start a server on that directory. What was committed since is not in it. Single "
      "tables:\n"
      "`holdfast extract TABLE --to name:{}`\n",
      base::to_string(migration.begun), outcome.restore_command, migration.restore_point);
}

json to_json(const Aftermath& outcome, const std::vector<operations::WayBack>& ways_back) {
  json ways = json::array();
  for (const auto& [repository, migration] : ways_back) {
    json document = to_json(migration);
    document["repository"] = repository;
    ways.push_back(document);
  }
  return {{"status", outcome.status},
          {"ways_back", ways},
          {"restore_command", outcome.restore_command},
          {"restored_into", outcome.restored ? json(outcome.restored->directory.string()) : json()},
          {"not_restored", outcome.not_restored ? json(outcome.not_restored->message()) : json()}};
}

/// So that nobody takes status 6 for the command's own.
[[noreturn]] void say_not_started(const Error& error) {
  throw Error(error.code(), "the command was not started: " + error.message(), error.hint());
}

void understand(const Invocation& invocation, Options& options) {
  operations::MigrationRequest& request = options.request;
  if (request.command.empty()) {
    throw Error(Code::usage, "cannot tell what to run",
                "put the command behind --, as in holdfast migrate -- psql -f migration.sql");
  }
  if (!options.duration.empty()) request.keep = base::parse_duration(options.duration);
  if (request.keep && *request.keep <= base::Microseconds(0)) {
    throw Error(Code::usage, "cannot pin a snapshot for no time", "say --for 30d");
  }
  if (!options.within.empty()) request.archived_within = base::parse_duration(options.within);
  if (!options.auto_restore.empty()) {
    request.auto_restore = base::fs::absolute(options.auto_restore);
  } else if (request.instant) {
    throw Error(Code::usage, "cannot restore at once without a directory",
                "--instant says how --auto-restore DIR is done");
  }
  if (invocation.json) request.output = STDERR_FILENO;
}

Aftermath after(int status, const operations::Migrating& migrating, const Invocation& invocation,
                const operations::Configuration& configuration,
                const operations::MigrationRequest& request) {
  Aftermath outcome;
  outcome.status = status;
  outcome.restore_command = operations::restore_command(configuration, invocation.cluster,
                                                        migrating.ways_back().front().migration);
  if (status == 0 || request.auto_restore.empty()) return outcome;
  try {
    with_progress(invocation, [&](base::Progress& progress) {
      outcome.restored = migrating.restore(progress);
    });
  } catch (const Error& error) {
    outcome.not_restored = error;
  }
  return outcome;
}

void migrate(Invocation& invocation, Options& options) {
  base::catch_interrupts();
  std::vector<operations::Configuration> repositories;
  std::optional<operations::Migrating> migrating;
  try {
    understand(invocation, options);
    repositories = operations::each_repository(invocation.configuration(), invocation.repositories);
    migrating.emplace(repositories, invocation.cluster, options.request, say);
    with_progress(invocation, [&](base::Progress& progress) { migrating->prepare(progress); });
  } catch (const Error& error) {
    say_not_started(error);
  }
  print_started(migrating->ways_back());
  invocation.exit_status = migrating->run_command();
  const Aftermath outcome =
      after(invocation.exit_status, *migrating, invocation, repositories.front(), options.request);
  const Migration migration = migrating->ways_back().front().migration;
  if (outcome.status != 0) {
    print_failed(outcome, migration);
  } else {
    std::cerr << fmt::format("Migration {} succeeded.\n", migration.id);
  }
  if (invocation.json) print_json(invocation, to_json(outcome, migrating->ways_back()));
}

}  // namespace

void add_migrate(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "migrate", "Run a database migration, once the way back is proven",
      {Code::damaged, Code::corrupt, Code::busy, Code::unreachable, Code::foreign, Code::no_space,
       Code::wal_missing, Code::refused},
      [&invocation, options] {
        if (!options->list) return migrate(invocation, *options);
        for_each_repository(invocation,
                            [&](const operations::Configuration& each) { list(invocation, each); });
      });
  command
      ->add_option("command", options->request.command,
                   "What to run, behind --. Its exit status becomes this command's; a status of "
                   "the list below without it means that it was not started")
      ->type_name("-- COMMAND...");
  command->add_flag("--list", options->list, "Show the migrations that were begun, and their ends");
  command
      ->add_option("--commit", options->request.commit,
                   "What is being deployed; by default git's HEAD in the working directory")
      ->type_name("COMMIT");
  command
      ->add_option("--for", options->duration,
                   "How long the snapshot is kept: 12h, 30d, 2w; by default what [keep] says for "
                   "snapshots")
      ->type_name("DURATION");
  command
      ->add_option("--archived-within", options->within,
                   "How long to wait until the restore point is in the repository; 5min by default")
      ->type_name("DURATION");
  command
      ->add_option("--auto-restore", options->auto_restore,
                   "If the command fails, restore the state before it into this directory")
      ->type_name("DIR");
  command->add_flag("--instant", options->request.instant,
                    "Mount it there, so that a server can start at once; the data follows");
  add_workers(*command, options->request.workers);
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
