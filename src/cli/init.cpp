#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "operations/initialize.h"

namespace holdfast::cli {

namespace {

using base::Code;

struct Options {
  std::string connection;
  std::string data_directory;
  std::string repository;
  std::string key_file;
  std::string key_command;
  bool agentless = false;
  bool no_encryption = false;
  bool recovery_kit = false;
  bool new_system = false;
};

std::string default_configuration(const Invocation& invocation) {
  if (!invocation.config.empty()) return invocation.config;
  if (const char* variable = std::getenv("HOLDFAST_CONFIG"); variable != nullptr) return variable;
  return ::geteuid() == 0 ? "/etc/holdfast/holdfast.toml" : "holdfast.toml";
}

/// On a terminal the questions that matter are asked; each has an answer ready.
void ask(std::string& value, const std::string& question, const std::string& by_default) {
  if (!value.empty() || ::isatty(STDIN_FILENO) != 1) return;
  std::cerr << question << " [" << by_default << "]: ";
  std::getline(std::cin, value);
}

void print(const operations::InitOutcome& outcome, bool agentless) {
  const auto say = [](const std::string& line) { std::cout << line << "\n"; };
  if (outcome.made_key_file) say("Made key file " + outcome.key_file);
  if (outcome.made_repository) say("Made the repository");
  if (outcome.registered) say("Registered system " + outcome.system_id);
  if (outcome.wrote_configuration) say("Wrote " + outcome.configuration.string());
  if (!outcome.recovery_kit.empty()) say("\n" + outcome.recovery_kit);
  if (outcome.made_repository && agentless) {
    say("Next: `holdfast backup` takes a backup, `holdfast wal receive` (a service) brings WAL.");
  } else if (outcome.made_repository) {
    say("Next: `holdfast doctor --fix` sets up WAL archiving, `holdfast backup` takes a backup.");
  } else if (!outcome.registered && !outcome.wrote_configuration) {
    say("Everything was there already. The recovery kit comes again with --recovery-kit.");
  }
}

void init(Invocation& invocation, Options& options) {
  operations::InitRequest request;
  request.configuration = default_configuration(invocation);
  request.cluster = invocation.cluster;
  ask(options.repository, "Where shall the repository be", "file:///var/lib/holdfast");
  request.connection = options.connection;
  request.data_directory = options.data_directory;
  request.agentless = options.agentless;
  request.repository = options.repository;
  request.key.key_file = options.key_file;
  request.key.key_command = options.key_command;
  request.encrypt = !options.no_encryption;
  request.recovery_kit = options.recovery_kit;
  request.new_system = options.new_system;
  const char* passphrase = std::getenv("HOLDFAST_PASSPHRASE");
  if (passphrase != nullptr && request.key.empty() && request.encrypt) {
    request.key.passphrase = passphrase;
  }
  const operations::InitOutcome outcome = operations::initialize(request);
  for (const std::string& note : outcome.notes) print_warning(note);
  if (!invocation.json) return print(outcome, options.agentless);
  print_json(invocation, {{"configuration", outcome.configuration.string()},
                          {"wrote_configuration", outcome.wrote_configuration},
                          {"made_repository", outcome.made_repository},
                          {"registered_system", outcome.registered},
                          {"system_id", outcome.system_id},
                          {"recovery_kit", outcome.recovery_kit}});
}

}  // namespace

void add_init(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "init", "Write holdfast.toml, create the repository, print the recovery kit",
      {Code::configuration, Code::conflict, Code::foreign, Code::key},
      [&invocation, options] { init(invocation, *options); });
  command->add_option("--connection", options->connection, "How to reach the server (libpq)")
      ->type_name("STRING");
  command
      ->add_option("--data-directory", options->data_directory,
                   "The server's data directory; asked from the server by default")
      ->type_name("DIR");
  command
      ->add_option("--repository", options->repository,
                   "Where backups go; file:///var/lib/holdfast by default")
      ->type_name("URL");
  command
      ->add_option("--key-file", options->key_file,
                   "File with the key (made if it is not there); by default beside the "
                   "configuration, or the passphrase in $HOLDFAST_PASSPHRASE")
      ->type_name("FILE");
  command->add_option("--key-command", options->key_command, "Command that prints the key")
      ->type_name("COMMAND");
  command->add_flag("--agentless", options->agentless,
                    "Use the connection alone (replication), no data directory");
  command->add_flag("--no-encryption", options->no_encryption, "Store everything in the clear");
  command->add_flag("--recovery-kit", options->recovery_kit,
                    "Print the recovery kit again, of a repository that is there");
  command->add_flag("--new-system", options->new_system,
                    "The cluster is a new PostgreSQL system (after pg_upgrade)");
}

}  // namespace holdfast::cli
