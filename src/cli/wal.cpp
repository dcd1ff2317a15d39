#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;

/// What restore_command must return so that the server stops instead of taking the end of WAL for
/// reached: any status of 1 to 125 means "there is no such file" (pitfall B31).
constexpr int fetch_failed = 200;
constexpr int fetch_absent = 1;

void push(const Invocation& invocation, const std::string& path) {
  const operations::PushOutcome outcome = operations::push_wal_everywhere(
      operations::each_repository(invocation.configuration(), invocation.repositories),
      invocation.cluster, path, std::min(4U, base::default_workers()), print_failure);
  if (invocation.json) {
    print_json(
        invocation,
        {{"file", outcome.name}, {"bytes", outcome.bytes}, {"was_there", outcome.was_there}});
  }
}

struct FetchOptions {
  std::string name;
  std::string destination;
  std::string system;
  bool to_target = false;
  bool tablespaces_in_place = false;
};

bool fetch_once(const Invocation& invocation, const FetchOptions& options) {
  return operations::fetch_wal_anywhere(
      operations::each_repository(invocation.configuration(), invocation.repositories),
      invocation.cluster,
      {options.system, options.name, options.destination, true, options.to_target, false,
       options.tablespaces_in_place},
      print_failure);
}

/// A standby waits for ever for what may come; a server in recovery must be stopped.
bool fetch_patiently(const Invocation& invocation, const FetchOptions& options) {
  const bool standby = base::status_of("standby.signal").has_value();
  auto pause = std::chrono::milliseconds(500);
  while (true) {
    try {
      return fetch_once(invocation, options);
    } catch (const Error& error) {
      if (!standby) throw;
      if (error.code() == Code::wal_missing) {
        print_error(invocation, error);
        return false;  // to a standby a hole is "not yet": streaming may fill it
      }
      // A repository that is not there now, or whose keys are not, was there when the standby was
      // made.
      const bool may_pass = base::info(error.code()).transient || error.code() == Code::not_found ||
                            error.code() == Code::key;
      if (!may_pass) throw;
      print_error(invocation, error);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(30000));
  }
}

void fetch(Invocation& invocation, const FetchOptions& options) {
  try {
    if (!fetch_patiently(invocation, options)) invocation.exit_status = fetch_absent;
  } catch (const Error& error) {
    print_error(invocation, error);
    invocation.exit_status = fetch_failed;
  } catch (const std::exception& error) {
    print_error(invocation, Error(Code::internal, error.what()));
    invocation.exit_status = fetch_failed;
  }
}

}  // namespace

void add_wal(CLI::App& app, Invocation& invocation) {
  CLI::App* wal =
      app.add_subcommand("wal", "Receive, archive and fetch WAL: archive_command, restore_command");
  wal->require_subcommand(1);
  wal->fallthrough();
  add_wal_receive(*wal, invocation);

  const auto path = std::make_shared<std::string>();
  CLI::App* push_command = add_command(
      *wal, invocation, "push", "Store a WAL file: archive_command = 'holdfast wal push %p'",
      {Code::foreign, Code::conflict, Code::corrupt, Code::no_space, Code::key},
      [&invocation, path] { push(invocation, *path); });
  add_repositories(*push_command, invocation);
  push_command->add_option("path", *path, "What PostgreSQL puts for %p")
      ->required()
      ->type_name("PATH");

  const auto options = std::make_shared<FetchOptions>();
  CLI::App* fetch_command = add_command(
      *wal, invocation, "fetch", "Fetch a WAL file: restore_command = 'holdfast wal fetch %f %p'",
      {}, [&invocation, options] { fetch(invocation, *options); }, SilenceIs::unsaid);
  add_repositories(*fetch_command, invocation);
  fetch_command->add_option("name", options->name, "What PostgreSQL puts for %f")
      ->required()
      ->type_name("NAME");
  fetch_command->add_option("destination", options->destination, "What PostgreSQL puts for %p")
      ->required()
      ->type_name("PATH");
  fetch_command
      ->add_option("--system", options->system,
                   "The system identifier; by default that of the data directory that this runs "
                   "in, or of the one that is configured")
      ->type_name("ID");
  fetch_command->add_flag(
      "--to-target", options->to_target,
      "Recovery has a target: PostgreSQL itself fails if WAL ends before it, so "
      "a hole is reported as not found");
  fetch_command->add_flag(
      "--tablespaces-in-place", options->tablespaces_in_place,
      "Tablespaces that the WAL makes come into this data directory (pg_tblspc/OID), not to the "
      "place that they were made at first; `restore` says so");
  fetch_command->footer(
      "EXIT STATUS\n"
      "    0  fetched\n"
      "    1  the repository provably has no such file, and none behind it: recovery may end\n"
      "  200  anything else: PostgreSQL must stop, not promote");
}

}  // namespace holdfast::cli
