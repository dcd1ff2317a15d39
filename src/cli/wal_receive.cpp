#include "operations/wal_receive.h"

#include <cctype>
#include <cstdio>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;

void say(const std::string& message) {
  std::fputs(fmt::format("holdfast: {}\n", message).c_str(), stderr);
}

void receive_into(Invocation& invocation, const operations::Configuration& configuration,
                  bool synchronous) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
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
  print_json(invocation, {{"timeline", outcome.timeline.value},
                          {"durable_lsn", postgres::to_string(outcome.durable)},
                          {"server_lsn", postgres::to_string(outcome.server_end)},
                          {"needs_backup", outcome.needs_backup}});
}

/// One of several repositories that is down is tried again for as long as the others work.
void receive_patiently(Invocation& invocation, const operations::Configuration& configuration,
                       bool synchronous) {
  constexpr auto pause = std::chrono::seconds(10);
  const std::string& name = configuration.repository().name;
  for (;;) {
    try {
      return receive_into(invocation, configuration, synchronous);
    } catch (const base::Error& error) {
      if (error.code() == Code::interrupted) return;
      if (!base::info(error.code()).transient && error.code() != Code::not_found) throw;
      say(fmt::format("repository {}: {}; it is tried again", name, error.message()));
    }
    const auto next = std::chrono::steady_clock::now() + pause;
    while (std::chrono::steady_clock::now() < next) {
      if (base::interrupted()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

void receive(Invocation& invocation, bool synchronous) {
  auto repositories =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  base::catch_interrupts();
  if (invocation.configuration().repositories.size() == 1) {
    return receive_into(invocation, repositories.front(), synchronous);
  }
  // Each has a receiver and a slot of its own, so that none waits for another.
  std::vector<std::jthread> receivers;
  std::mutex mutex;
  std::optional<base::Error> first;
  for (operations::Configuration& each : repositories) {
    std::string name = each.repository().name;
    for (char& c : name)
      c = std::isalnum(static_cast<unsigned char>(c)) != 0
              ? static_cast<char>(std::tolower(static_cast<unsigned char>(c)))
              : '_';
    each.wal.slot += "_" + name;
    receivers.emplace_back([&, configuration = each] {
      try {
        receive_patiently(invocation, configuration, synchronous);
      } catch (const base::Error& error) {
        say(fmt::format("repository {}: ALARM: {}", configuration.repository().name,
                        error.message()));
        const std::lock_guard lock(mutex);
        if (!first) first = error;
      }
    });
  }
  receivers.clear();  // waits for them
  if (first) throw *first;
}

}  // namespace

void add_wal_receive(CLI::App& wal, Invocation& invocation) {
  const auto synchronous = std::make_shared<bool>(false);
  CLI::App* command = add_command(
      wal, invocation, "receive", "Stream WAL into the repository as it is written, until stopped",
      {Code::busy, Code::foreign, Code::conflict, Code::no_space, Code::wal_missing},
      [&invocation, synchronous] { receive(invocation, *synchronous); });
  add_repositories(*command, invocation);
  command->add_flag("--synchronous", *synchronous,
                    "Store WAL as it comes, for commits that wait for it: set "
                    "synchronous_standby_names = 'holdfast' on the server");
}

}  // namespace holdfast::cli
