#include "operations/verify.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;

/// A backup may have thousands of files that cannot be restored; people read the first few.
constexpr std::size_t problems_shown = 10;

struct Options {
  unsigned workers = 1;
  bool rebuild_maps = false;
};

json to_json(const operations::VerifyReport& report) {
  json backups = json::array();
  for (const operations::BackupVerdict& each : report.backups) {
    backups.push_back({{"id", each.backup.id.text},
                       {"restorable", each.problems.empty()},
                       {"damaged_when_taken", each.backup.is_damaged()},
                       {"suspect", each.backup.is_suspect()},
                       {"suspicion", each.backup.suspicion},
                       {"problems", each.problems}});
  }
  for (const operations::UnreadableBackup& each : report.unreadable) {
    backups.push_back({{"id", each.id.text}, {"restorable", false}, {"problems", {each.why}}});
  }
  json windows = json::array();
  for (const auto& window : report.windows) windows.push_back(operations::to_string(window));
  return {{"ok", report.ok()},
          {"backups", backups},
          {"problems", report.problems},
          {"recovery_windows", windows},
          {"packs", report.packs},
          {"frames", report.frames},
          {"wal_files", report.wal_segments},
          {"wal_files_with_remains", report.remains},
          {"secret_bundles", report.secret_bundles},
          {"file_sets", report.file_sets},
          {"bytes_read", report.bytes},
          {"orphans", report.orphans},
          {"orphan_bytes", report.orphan_bytes}};
}

void print(const operations::VerifyReport& report) {
  for (const operations::BackupVerdict& each : report.backups) {
    std::cout << fmt::format("{}  {}\n", each.backup.id.text,
                             !each.problems.empty()     ? "CANNOT BE RESTORED"
                             : each.backup.is_damaged() ? "restorable, but DAMAGED when taken"
                             : each.backup.is_suspect() ? "restorable, but SUSPECT"
                                                        : "good");
    if (each.backup.is_suspect()) std::cout << "    " << each.backup.suspicion << "\n";
    std::size_t shown = 0;
    for (const std::string& problem : each.problems) {
      if (shown++ == problems_shown) {
        std::cout << fmt::format("    and {} more\n", each.problems.size() - problems_shown);
        break;
      }
      std::cout << "    " << problem << "\n";
    }
  }
  for (const operations::UnreadableBackup& each : report.unreadable) {
    std::cout << fmt::format("{}  CANNOT BE RESTORED\n    {}\n", each.id.text, each.why);
  }
  for (const std::string& problem : report.problems) std::cout << "PROBLEM  " << problem << "\n";
  for (const auto& window : report.windows) {
    std::cout << "Recovery window " << operations::to_string(window) << "\n";
  }
  std::cout << fmt::format("Read {}: {} packs with {} frames, {} WAL files\n",
                           base::size_text(report.bytes), report.packs, report.frames,
                           report.wal_segments);
  if (!report.remains.empty()) {
    std::cout << fmt::format(
        "{} WAL files hold bytes of older ones behind their end, such as {}: no harm, they are not "
        "read\n",
        report.remains.size(), report.remains.front());
  }
  if (report.secret_bundles > 0) {
    std::cout << fmt::format("{} bundles of secrets were read, not opened\n",
                             report.secret_bundles);
  }
  if (report.orphans > 0) {
    std::cout << fmt::format(
        "{} objects ({}) belong to no backup: remains of one that was killed\n", report.orphans,
        base::size_text(report.orphan_bytes));
  }
  std::cout << (report.ok() ? "Everything is as it was written.\n" : "NOT everything is right.\n");
}

void verify(Invocation& invocation, const operations::Configuration& configuration,
            const Options& options) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  base::catch_interrupts();
  operations::VerifyReport report;
  with_progress(invocation, [&](base::Progress& progress) {
    if (options.rebuild_maps) {
      const std::uint64_t rebuilt = operations::rebuild_maps(site, progress);
      progress.warn("{} map shards were rebuilt from packs", rebuilt);
    }
    report = operations::verify(site, options.workers, progress);
  });
  if (!report.ok()) invocation.exit_status = base::info(Code::check_failed).exit_status;
  if (invocation.json) return print_json(invocation, to_json(report));
  print(report);
}

}  // namespace

void add_verify(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, invocation, "verify", "Read every byte of the repository and check it",
      {Code::check_failed, Code::key, Code::not_found, Code::unreachable}, [&invocation, options] {
        for_each_repository(invocation, [&](const operations::Configuration& each) {
          verify(invocation, each, *options);
        });
      });
  command->add_flag("--rebuild-maps", options->rebuild_maps,
                    "First write map shards that are lost or corrupt again, from what packs say");
  add_workers(*command, options->workers);
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
