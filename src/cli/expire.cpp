#include "operations/expire.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;

struct ExpireOptions {
  std::vector<std::string> let_go;
  bool yes = false;
  bool dry_run = false;
};

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

std::uint64_t bytes_of(const std::vector<operations::NamedObject>& objects) {
  std::uint64_t sum = 0;
  for (const auto& each : objects) sum += each.bytes;
  return sum;
}

json system_json(const operations::SystemPlan& system) {
  json kept = json::array();
  json going = json::array();
  for (const operations::Decision& each : system.decisions) {
    json backup = {{"id", each.backup().id.text}, {"stopped", base::to_iso(each.backup().stopped)}};
    if (each.kept()) {
      backup["kept_by"] = each.reasons;
      backup["keeps_wal"] = each.keeps_wal;
    }
    (each.kept() ? kept : going).push_back(std::move(backup));
  }
  json wal = json::array();
  for (const operations::TimelineWal& each : system.wal) {
    wal.push_back({{"timeline", each.timeline.value},
                   {"removes", each.going.size()},
                   {"bytes", bytes_of(each.going)},
                   {"keeps_segments", each.kept},
                   {"keeps_from", each.first_kept},
                   {"keeps_to", each.last_kept}});
  }
  json objects = json::array();
  for (const auto& each : system.unreferenced) objects.push_back(each.name);
  return {{"system_id", system.place.system_id},
          {"keeps", kept},
          {"expires", going},
          {"wal", wal},
          {"unreferenced", objects},
          {"unreferenced_bytes", bytes_of(system.unreferenced)},
          {"bytes_after_grace", system.later_bytes}};
}

json plan_json(const operations::ExpirePlan& plan) {
  json systems = json::array();
  for (const operations::SystemPlan& system : plan.systems) systems.push_back(system_json(system));
  json unreadable = json::array();
  for (const auto& each : plan.unreadable) unreadable.push_back(each.id.text);
  json files = json::array();
  for (const auto& each : plan.files) files.push_back(each.name);
  return {{"has_rules", plan.has_rules}, {"systems", systems},
          {"unreadable", unreadable},    {"files", files},
          {"bytes", plan.bytes()},       {"problems", plan.problems}};
}

std::string moment(const operations::BackupInfo& backup) {
  return base::to_string(std::chrono::floor<std::chrono::seconds>(backup.stopped));
}

void print_system(const operations::SystemPlan& system) {
  for (const operations::Decision& each : system.decisions) {
    std::cout << fmt::format("{:<21}  {:<7} {:<23}  {}\n", each.backup().id.text,
                             each.kept() ? "stays" : "EXPIRES", moment(each.backup()),
                             joined(each.reasons));
  }
  for (const operations::TimelineWal& each : system.wal) {
    if (each.going.empty()) continue;
    std::cout << fmt::format("WAL of timeline {}: {} files go, {}; {}\n", each.timeline.value,
                             each.going.size(), base::size_text(bytes_of(each.going)),
                             each.kept == 0
                                 ? "nothing stays"
                                 : fmt::format("{} segments stay, from {} to {}", each.kept,
                                               each.first_kept, each.last_kept));
  }
  if (!system.unreferenced.empty()) {
    std::cout << fmt::format("{} packs and map shards go, which no backup refers to: {}\n",
                             system.unreferenced.size(),
                             base::size_text(bytes_of(system.unreferenced)));
  }
  if (system.later_bytes > 0) {
    std::cout << fmt::format(
        "{} more can go an hour after their backups, by the next `holdfast expire`\n",
        base::size_text(system.later_bytes));
  }
}

void print_plan(const operations::ExpirePlan& plan) {
  for (const operations::SystemPlan& system : plan.systems) {
    if (plan.systems.size() > 1) {
      std::cout << fmt::format("System {}:\n", system.place.system_id);
    }
    print_system(system);
  }
  for (const operations::UnreadableBackup& each : plan.unreadable) {
    std::cout << fmt::format("{:<21}  stays   it cannot be read\n", each.id.text);
  }
  if (!plan.files.empty()) {
    std::cout << fmt::format("{} sets of files go, whose time is over: {}\n", plan.files.size(),
                             base::size_text(bytes_of(plan.files)));
  }
}

void warn_of(const std::vector<std::string>& problems) {
  for (const std::string& problem : problems) print_warning(problem);
  if (!problems.empty()) {
    print_warning("no pack, map shard or WAL is removed while these cannot be read");
  }
}

void warn_of_failures(const std::vector<base::Error>& failures) {
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < failures.size() && i < most; ++i) {
    print_warning(failures[i].message());
  }
  if (failures.empty()) return;
  print_warning(fmt::format(
      "{} of what was to go could not be removed and stays; the next `holdfast expire` tries again",
      failures.size()));
}

bool may_go_on(const operations::ExpirePlan& plan, const ExpireOptions& options) {
  if (options.yes) return true;
  if (::isatty(STDIN_FILENO) != 1) {
    throw base::Error(Code::refused,
                      "cannot expire anything unasked: there is no terminal to ask on",
                      "add --yes; --dry-run only shows what would go");
  }
  std::size_t going = 0;
  for (const auto& system : plan.systems) going += system.going().size();
  return confirmed(
      fmt::format("Remove {} backups and free {}?", going, base::size_text(plan.bytes())));
}

void expire(Invocation& invocation, const operations::Configuration& configuration,
            const ExpireOptions& options) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  operations::ExpireRequest request;
  request.let_go = {options.let_go.begin(), options.let_go.end()};
  const operations::ExpirePlan plan = operations::plan_expire(site, request);
  json document = plan_json(plan);
  if (!invocation.json) print_plan(plan);
  warn_of(plan.problems);
  if (plan.now + std::chrono::hours(1) < base::now()) {
    print_warning(
        fmt::format("nothing in the repository is from the day before now: the rules go by {}, as "
                    "the clock may "
                    "be wrong",
                    base::to_string(std::chrono::floor<std::chrono::seconds>(plan.now))));
  }
  if (!plan.problems.empty()) invocation.exit_status = base::info(Code::corrupt).exit_status;
  if (!plan.has_rules) {
    print_warning(
        "no backup is ever expired, as the configuration has no rules; to have some, add\n"
        "  [keep]\n  backups = \"7d\"");
  }
  operations::ExpireOutcome done;
  if (!options.dry_run && !plan.empty()) {
    if (!may_go_on(plan, options)) {
      std::cerr << "Nothing was removed.\n";
      return;
    }
    base::catch_interrupts();
    with_progress(invocation, [&](base::Progress& progress) {
      done = operations::expire(site, plan, request, progress);
    });
    if (done.problems != plan.problems) warn_of(done.problems);
    warn_of_failures(done.failures);
    if (!done.failures.empty()) {
      invocation.exit_status = base::info(done.failures.front().code()).exit_status;
    }
    if (!done.problems.empty()) invocation.exit_status = base::info(Code::corrupt).exit_status;
  }
  if (invocation.json) {
    json expired = json::array();
    for (const auto& id : done.expired) expired.push_back(id.text);
    json spared = json::array();
    for (const auto& id : done.spared) spared.push_back(id.text);
    document["dry_run"] = options.dry_run;
    json failures = json::array();
    for (const base::Error& each : done.failures) failures.push_back(each.message());
    document["done"] = {{"expired", expired},
                        {"spared", spared},
                        {"objects", done.objects},
                        {"bytes", done.bytes},
                        {"failures", failures}};
    return print_json(invocation, document);
  }
  for (const auto& id : done.spared) {
    std::cout << fmt::format("{} was pinned meanwhile, and stays\n", id.text);
  }
  if (options.dry_run) {
    std::cout << "Nothing was removed: this was a dry run.\n";
  } else if (plan.empty()) {
    std::cout << "There is nothing to remove.\n";
  } else {
    std::cout << fmt::format("Expired {} backups; removed {} objects, {}\n", done.expired.size(),
                             done.objects, base::size_text(done.bytes));
  }
}

}  // namespace

void add_expire(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<ExpireOptions>();
  CLI::App* command = add_command(
      app, invocation, "expire", "Remove what [keep] does not keep, after showing what that is",
      {Code::refused, Code::busy, Code::corrupt, Code::not_found, Code::permission},
      [&invocation, options] {
        for_each_repository(invocation, [&](const operations::Configuration& each) {
          expire(invocation, each, *options);
        });
      });
  add_repositories(*command, invocation);
  command
      ->add_option("--let-go", options->let_go,
                   "A system that the cluster has left (after pg_upgrade): its last good backup "
                   "need not stay any longer; may be repeated")
      ->type_name("ID");
  command->add_flag("--yes", options->yes, "Do not ask");
  command->add_flag("--dry-run", options->dry_run, "Only show what would go");
}

}  // namespace holdfast::cli
