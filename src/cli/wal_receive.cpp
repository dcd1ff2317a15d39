#include "operations/wal_receive.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;

void say(const std::string& message) {
  std::fputs(fmt::format("holdfast: {}\n", message).c_str(), stderr);
}

void receive(Invocation& invocation, bool synchronous) {
  const operations::Configuration configuration = invocation.configuration();
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  base::catch_interrupts();
  operations::ReceiveRequest request;
  request.synchronous = synchronous;
  request.workers = std::min(4U, base::default_workers());
  request.say = say;
  const operations::ReceiveOutcome outcome = operations::receive_wal(site, request);
  say(fmt::format("stopped: all WAL that was received, up to {}, is in the repository",
                  postgres::to_string(outcome.durable)));
  if (outcome.needs_backup) {
    say("ALARM: there is a gap, and no backup behind it: take one with `holdfast backup`");
    invocation.exit_status = base::info(Code::wal_missing).exit_status;
  }
  if (!invocation.json) return;
  print_json({{"timeline", outcome.timeline.value},
              {"durable_lsn", postgres::to_string(outcome.durable)},
              {"server_lsn", postgres::to_string(outcome.server_end)},
              {"needs_backup", outcome.needs_backup}});
}

}  // namespace

void add_wal_receive(CLI::App& wal, Invocation& invocation) {
  const auto synchronous = std::make_shared<bool>(false);
  CLI::App* command = add_command(
      wal, invocation, "receive", "Stream WAL into the repository as it is written, until stopped",
      {Code::busy, Code::foreign, Code::conflict, Code::no_space, Code::wal_missing},
      [&invocation, synchronous] { receive(invocation, *synchronous); });
  command->add_flag("--synchronous", *synchronous,
                    "Store WAL as it comes, for commits that wait for it: set "
                    "synchronous_standby_names = 'holdfast' on the server");
}

}  // namespace holdfast::cli
