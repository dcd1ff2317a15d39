#include "operations/demo.h"

#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/process.h"
#include "cli/command.h"
#include "postgres/server.h"

namespace holdfast::cli {

namespace {

using base::Code;

/// Names the directory to a process that goes on as another user.
constexpr const char* directory_variable = "HOLDFAST_DEMO_DIRECTORY";

/// PostgreSQL refuses to run as root, and its archive_command runs as its own user. So as root the
/// demo goes on as that user, with a copy of this program that he can run wherever it was built.
[[noreturn]] void go_on_as(const base::User& user, const base::fs::path& directory,
                           const Invocation& invocation) {
  const base::fs::path program = directory / "holdfast";
  base::fs::copy_file(base::own_program(), program);
  base::fs::permissions(program, base::fs::perms(0755));
  if (::chown(directory.c_str(), user.uid, user.gid) != 0) {
    base::fail_errno("give the demo's directory away", errno);
  }
  base::Command command;
  command.argv = {program.string(), "demo"};
  if (invocation.json) command.argv.emplace_back("--json");
  command.directory = directory;
  command.environment = {{directory_variable, directory.string()}};
  command.user = user;
  base::become(command);
}

void print(const operations::DemoOutcome& outcome) {
  const auto row = [](const char* name, const std::string& measured, const char* runbook) {
    std::cout << fmt::format("  {:<34} {:>12}   {:>8}\n", name, measured, runbook);
  };
  std::cout << "\n";
  row("", "measured", "runbook");
  row("RPO: what was lost", base::to_string_short(outcome.rpo), "24 h");
  row("RTO: from the loss to serving", base::to_string_short(outcome.rto), "4 h");
  row("  of that, restoring files", base::to_string_short(outcome.restore_time), "");
  std::cout << fmt::format(
      "\n{} commits were acknowledged before the loss, {} of them before the last durable moment.\n"
      "Of those, {} are missing.\n",
      outcome.acknowledged, outcome.durable, outcome.missing);
}

void demo(Invocation& invocation) {
  const char* given = std::getenv(directory_variable);
  const base::fs::path directory = [&] {
    if (given != nullptr) return base::fs::path(given);
    std::string name = (base::fs::temp_directory_path() / "holdfast-demo.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) base::fail_errno("create \"" + name + "\"", errno);
    return base::fs::path(name);
  }();
  struct Cleanup {
    const base::fs::path& directory;
    ~Cleanup() {
      std::error_code ignored;
      base::fs::remove_all(directory, ignored);
    }
  };
  const Cleanup cleanup{directory};
  const auto user = postgres::server_user();
  if (base::running_as_root() && user) go_on_as(*user, directory, invocation);

  const auto say = [&](const std::string& line) {
    if (!invocation.json) std::cout << "- " << line << std::endl;
  };
  const operations::DemoOutcome outcome = operations::run_demo(directory / "demo", say);
  if (outcome.missing > 0 || outcome.durable == 0) {
    invocation.exit_status = base::info(Code::check_failed).exit_status;
  }
  if (!invocation.json) return print(outcome);
  print_json(invocation, {{"server_major", outcome.server_major},
                          {"acknowledged", outcome.acknowledged},
                          {"durable", outcome.durable},
                          {"missing", outcome.missing},
                          {"recovered", outcome.recovered},
                          {"backup_ms", outcome.backup_time.count() / 1000},
                          {"restore_ms", outcome.restore_time.count() / 1000},
                          {"rpo_ms", outcome.rpo.count() / 1000},
                          {"rto_ms", outcome.rto.count() / 1000}});
}

}  // namespace

void add_demo(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, "demo",
              "Lose a throwaway PostgreSQL in the middle of a write, and get it back",
              {Code::check_failed, Code::not_found}, [&invocation] { demo(invocation); });
}

}  // namespace holdfast::cli
