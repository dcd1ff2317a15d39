#include "operations/pin.h"

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

struct PinOptions {
  std::string backup;
  std::string until;
  std::string duration;
  std::string reason;
  operations::BackupRequest request;
};

base::Timestamp end_of(const PinOptions& options) {
  if (options.until.empty() == options.duration.empty()) {
    throw base::Error(Code::usage, "cannot tell how long to pin it",
                      "say either --until \"2026-12-24 00:00\" or --for 30d");
  }
  if (!options.until.empty()) return base::parse_time(options.until, "UTC").time;
  return base::now() + base::parse_duration(options.duration);
}

json pin_json(const repository::Pin& pin) {
  json document = {{"backup", pin.backup.text}, {"pin", pin.id}, {"readable", pin.readable}};
  if (!pin.readable) return document;
  document["until"] = base::to_iso(pin.until);
  document["reason"] = pin.reason;
  return document;
}

void print_pinned(const repository::Pin& pin) {
  std::cout << fmt::format("Pinned backup {} until {}: {}\n", pin.backup.text,
                           base::to_string(pin.until), pin.reason);
}

void pin(Invocation& invocation, const operations::Configuration& configuration,
         const PinOptions& options) {
  const base::Timestamp until = end_of(options);
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const auto made = operations::pin_backup(site, options.backup, until, options.reason);
  if (invocation.json) return print_json(invocation, pin_json(made));
  print_pinned(made);
}

void unpin(Invocation& invocation, const operations::Configuration& configuration,
           const PinOptions& options) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const auto released = operations::unpin_backup(site, options.backup);
  if (invocation.json) {
    json pins = json::array();
    for (const auto& each : released) pins.push_back(pin_json(each));
    return print_json(invocation, {{"released", pins}});
  }
  std::cout << fmt::format("Backup {} is pinned no more; released {} {}\n", options.backup,
                           released.size(), released.size() == 1 ? "pin" : "pins");
}

void snapshot(Invocation& invocation, const operations::Configuration& configuration,
              const PinOptions& options) {
  const base::Microseconds keep = options.duration.empty() ? configuration.keep.snapshots
                                                           : base::parse_duration(options.duration);
  if (keep <= base::Microseconds(0)) {
    throw base::Error(Code::usage, "cannot pin a snapshot for no time", "say --for 30d");
  }
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  base::catch_interrupts();
  std::optional<operations::Snapshot> taken;
  with_progress(invocation, [&](base::Progress& progress) {
    taken = operations::take_snapshot(site, options.request, keep, options.reason, progress);
  });
  const operations::BackupInfo& backup = taken->backup;
  if (backup.is_damaged()) invocation.exit_status = base::info(Code::damaged).exit_status;
  if (invocation.json) {
    json document = operations::to_json(backup);
    document["pin"] = pin_json(taken->pin);
    return print_json(invocation, document);
  }
  std::cout << fmt::format("{} snapshot {} of {}: {} in {} files, {} stored\n",
                           backup.is_damaged() ? "DAMAGED" : "Took", backup.id.text,
                           backup.place.cluster, base::size_text(backup.bytes), backup.files,
                           base::size_text(backup.stored_bytes));
  print_pinned(taken->pin);
}

/// Each repository has backups of its own: the one that has this one is meant.
void where_it_is(Invocation& invocation,
                 const std::function<void(const operations::Configuration&)>& work) {
  const auto repositories =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  std::optional<base::Error> missing;
  for (const operations::Configuration& each : repositories) {
    if (repositories.size() > 1) invocation.repository = each.repository().name;
    try {
      return work(each);
    } catch (const base::Error& error) {
      if (error.code() != Code::not_found) throw;
      if (!missing) missing = error;
    }
  }
  throw missing.value();
}

void add_backup_argument(CLI::App& command, PinOptions& options) {
  command.add_option("backup", options.backup, "Which backup, as `list` shows it")
      ->type_name("BACKUP")
      ->required();
}

void add_reason(CLI::App& command, PinOptions& options) {
  command.add_option("--reason", options.reason, "Why it must stay; `list` shows it")
      ->type_name("TEXT")
      ->required();
}

}  // namespace

void add_pin(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<PinOptions>();
  CLI::App* command =
      add_command(app, invocation, "pin", "Keep a backup whatever the rules say",
                  {Code::not_found, Code::busy}, [&invocation, options] {
                    where_it_is(invocation, [&](const operations::Configuration& each) {
                      pin(invocation, each, *options);
                    });
                  });
  add_backup_argument(*command, *options);
  command->add_option("--until", options->until, "The moment to which it is kept; UTC by default")
      ->type_name("TIME");
  command->add_option("--for", options->duration, "How long it is kept: 12h, 30d, 2w")
      ->type_name("DURATION");
  add_reason(*command, *options);

  const auto released = std::make_shared<PinOptions>();
  CLI::App* unpin_command =
      add_command(app, invocation, "unpin", "Let the rules decide on a backup again",
                  {Code::not_found}, [&invocation, released] {
                    where_it_is(invocation, [&](const operations::Configuration& each) {
                      unpin(invocation, each, *released);
                    });
                  });
  add_backup_argument(*unpin_command, *released);
  add_repositories(*command, invocation);
  add_repositories(*unpin_command, invocation);
}

void add_snapshot(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<PinOptions>();
  CLI::App* command =
      add_command(app, invocation, "snapshot", "Take a backup and pin it, as before a migration",
                  {Code::damaged, Code::busy, Code::unreachable, Code::foreign, Code::no_space,
                   Code::wal_missing},
                  [&invocation, options] {
                    for_each_repository(invocation, [&](const operations::Configuration& each) {
                      snapshot(invocation, each, *options);
                    });
                  });
  command
      ->add_option("--for", options->duration,
                   "How long it is kept: 12h, 30d, 2w; by default what [keep] says for snapshots")
      ->type_name("DURATION");
  add_reason(*command, *options);
  add_workers(*command, options->request.workers);
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
