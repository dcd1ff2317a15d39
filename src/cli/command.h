#pragma once

// What the commands share: the options that all of them take, how they end, how they speak.

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/error.h"
#include "base/report.h"
#include "operations/catalog.h"

namespace holdfast::cli {

/// One run of the program.
struct Invocation {
  std::string config;                     ///< --config
  std::string cluster;                    ///< --cluster
  bool json = false;                      ///< --json
  std::vector<std::string> repositories;  ///< --repository; empty: all of them
  std::string repository;                 ///< which one is at work, if there are several
  int exit_status = 0;                    ///< what the command wants to end with

  operations::Configuration configuration() const;
};

/// The EXIT STATUS section of a command's help: 0, and the given codes.
std::string exit_status_help(std::initializer_list<base::Code> codes);

/// Whether a command says that a repository does not answer. A thread watches for that; a command
/// that goes on in a process of its own must have one thread only when it forks, and does without.
enum class SilenceIs { said, unsaid };

/// Adds a command, with --json and --cluster, that runs `run`.
CLI::App* add_command(CLI::App& parent, Invocation& invocation, const std::string& name,
                      const std::string& description, std::initializer_list<base::Code> codes,
                      std::function<void()> run, SilenceIs silence = SilenceIs::said);

/// --repository, which may be repeated.
void add_repositories(CLI::App& command, Invocation& invocation);

/// Runs `work` for each repository that is meant, with a configuration that has no other one. With
/// several, a heading says which it is (in JSON a member "repository"), and one that fails does not
/// stop the others: what went wrong is printed, and the first error decides the exit status.
void for_each_repository(Invocation& invocation,
                         const std::function<void(const operations::Configuration&)>& work);

/// Says that a repository failed where another one may serve.
void print_failure(const std::string& repository, const base::Error& error);

/// --workers, by default one per processor.
void add_workers(CLI::App& command, unsigned& workers);

/// Prints an error in PostgreSQL's voice ("holdfast: could not ...", "hint: ..."), or as JSON.
void print_error(const Invocation& invocation, const base::Error& error);
void print_warning(const std::string& message);
void print_json(const Invocation& invocation, nlohmann::json document);

/// Shows `progress` on stderr while `work` runs, if stderr is a terminal; prints its warnings as
/// they come.
void with_progress(const Invocation& invocation, const std::function<void(base::Progress&)>& work);

/// "yes" to a question on the terminal. Without a terminal the answer is no.
bool confirmed(const std::string& question);

// The commands, one file each.
void add_init(CLI::App& app, Invocation& invocation);
void add_backup(CLI::App& app, Invocation& invocation);
void add_list(CLI::App& app, Invocation& invocation);
void add_events(CLI::App& app, Invocation& invocation);
void add_restore(CLI::App& app, Invocation& invocation);
void add_extract(CLI::App& app, Invocation& invocation);
void add_mount(CLI::App& app, Invocation& invocation);
void add_unmount(CLI::App& app, Invocation& invocation);
void add_settle(CLI::App& app, Invocation& invocation);
void add_wal(CLI::App& app, Invocation& invocation);
void add_wal_receive(CLI::App& wal, Invocation& invocation);
void add_verify(CLI::App& app, Invocation& invocation);
void add_doctor(CLI::App& app, Invocation& invocation);
void add_status(CLI::App& app, Invocation& invocation);
void add_demo(CLI::App& app, Invocation& invocation);
void add_drill(CLI::App& app, Invocation& invocation);
void add_gameday(CLI::App& app, Invocation& invocation);
void add_proxy(CLI::App& app, Invocation& invocation);
void add_smoke(CLI::App& app, Invocation& invocation);
void add_probe(CLI::App& app, Invocation& invocation);
void add_uptime(CLI::App& app, Invocation& invocation);
void add_serve(CLI::App& app, Invocation& invocation);
void add_expire(CLI::App& app, Invocation& invocation);
void add_pin(CLI::App& app, Invocation& invocation);  ///< and unpin
void add_snapshot(CLI::App& app, Invocation& invocation);
void add_migrate(CLI::App& app, Invocation& invocation);
void add_recover(CLI::App& app, Invocation& invocation);
void add_secrets(CLI::App& app, Invocation& invocation);
void add_files(CLI::App& app, Invocation& invocation);

/// Parses and runs; returns the exit status.
int run(int argc, char** argv);

}  // namespace holdfast::cli
