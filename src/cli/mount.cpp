#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/settle.h"

namespace holdfast::cli {

namespace {

using base::Code;
using operations::InstantPlace;
using operations::InstantStatus;

struct Options {
  std::string directory;
  bool status = false;
  bool pause = false;
  bool resume = false;
  bool discard = false;
  bool yes = false;
  operations::SettleRequest settle;
};

void print(const Invocation& invocation, const InstantPlace& place) {
  const InstantStatus status = operations::instant_status(place);
  if (invocation.json) {
    return print_json(invocation, {{"directory", place.directory.string()},
                                   {"backup", operations::existing_instant(place).backup.text},
                                   {"mounted", status.mounted},
                                   {"complete", status.complete},
                                   {"paused", status.paused},
                                   {"done_bytes", status.done},
                                   {"total_bytes", status.total},
                                   {"trouble", status.trouble}});
  }
  const std::string dir = place.directory.string();
  std::cout << dir << (status.mounted ? " is mounted; " : " is not mounted; ");
  if (status.complete) {
    std::cout << fmt::format("everything is local: `holdfast settle {}` makes it ordinary\n", dir);
    return;
  }
  std::cout << fmt::format("{} of {} are local{}\n", base::size_text(status.done),
                           base::size_text(status.total), status.paused ? " (paused)" : "");
  if (!status.trouble.empty()) std::cout << "in the way: " << status.trouble << "\n";
  if (!status.mounted) std::cout << fmt::format("`holdfast mount {}` goes on with it\n", dir);
}

void mount(const Invocation& invocation, const Options& options) {
  const InstantPlace place = operations::instant_place(options.directory);
  operations::existing_instant(place);
  if (options.pause || options.resume) operations::pause_hydration(place, options.pause);
  const bool only_tell = options.status || options.pause || options.resume;
  if (!only_tell) operations::mount_again(place);
  print(invocation, place);
}

void unmount(const Invocation& invocation, const Options& options) {
  const InstantPlace place = operations::instant_place(options.directory);
  const bool is_left = base::status_of(place.part("going")).has_value();
  if (!options.discard || !is_left) operations::existing_instant(place);
  if (!options.discard) {
    operations::unmount_instant(place);
    return print(invocation, place);
  }
  if (!options.yes && !confirmed(fmt::format("Remove {} and {} with all that is in them?",
                                             place.directory.string(), place.state().string()))) {
    throw base::Error(Code::refused, "nothing was removed", "answer yes, or use --yes");
  }
  operations::discard_instant(place);
  if (invocation.json) {
    return print_json(invocation, {{"discarded", place.directory.string()}});
  }
  std::cout << fmt::format("Removed {} and all that was in it.\n", place.directory.string());
}

void settle(const Invocation& invocation, Options& options) {
  options.settle.place = operations::instant_place(options.directory);
  base::catch_interrupts();
  operations::SettleOutcome outcome;
  with_progress(invocation, [&](base::Progress& progress) {
    outcome = operations::settle(options.settle, progress);
  });
  const std::string directory = options.settle.place.directory.string();
  if (invocation.json) {
    return print_json(invocation,
                      {{"directory", directory}, {"down_ms", outcome.down.count() / 1000}});
  }
  std::cout << fmt::format(
      "{} is an ordinary data directory now (it took {}).\n{}", directory,
      base::to_string_short(outcome.down),
      options.settle.start.empty()
          ? fmt::format("Start the server on it: pg_ctl -D {} start\n", directory)
          : "");
}

CLI::App* add_on_directory(CLI::App& app, Invocation& invocation, const std::string& name,
                           const std::string& description, const std::shared_ptr<Options>& options,
                           void (*run)(const Invocation&, Options&),
                           SilenceIs silence = SilenceIs::said) {
  CLI::App* command = add_command(
      app, invocation, name, description,
      {Code::not_found, Code::refused, Code::busy, Code::key, Code::permission, Code::io},
      [&invocation, options, run] { run(invocation, *options); }, silence);
  command->add_option("directory", options->directory, "The directory that was restored")
      ->type_name("DIR")
      ->required();
  return command;
}

}  // namespace

void add_mount(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_on_directory(
      app, invocation, "mount", "Go on with an instant restore, after a reboot or a crash", options,
      [](const Invocation& now, Options& asked) { mount(now, asked); }, SilenceIs::unsaid);
  CLI::Option* status = command->add_flag("--status", options->status, "Only tell how far it is");
  CLI::Option* pause =
      command->add_flag("--pause", options->pause, "Bring nothing in the background for now");
  CLI::Option* resume = command->add_flag("--resume", options->resume, "Bring the rest again");
  pause->excludes(resume)->excludes(status);
  resume->excludes(status);
}

void add_unmount(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_on_directory(
      app, invocation, "unmount", "End an instant restore's mount; it can be mounted again",
      options, [](const Invocation& now, Options& asked) { unmount(now, asked); });
  command->add_flag("--discard", options->discard, "Remove it, also what was changed in it");
  command->add_flag("--yes", options->yes, "Do not ask");
}

void add_settle(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_on_directory(
      app, invocation, "settle", "Turn an instant restore into an ordinary data directory", options,
      [](const Invocation& now, Options& asked) { settle(now, asked); });
  command
      ->add_option("--stop", options->settle.stop,
                   "How to stop the server once all is local (\"systemctl stop ...\")")
      ->type_name("COMMAND");
  command->add_option("--start", options->settle.start, "How to start it again")
      ->type_name("COMMAND");
}

}  // namespace holdfast::cli
