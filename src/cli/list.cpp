#include "operations/list.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;

json to_json(const operations::Listing& listing) {
  json backups = json::array();
  for (const operations::BackupInfo& backup : listing.backups) {
    backups.push_back(operations::to_json(backup));
  }
  json windows = json::array();
  for (const operations::RecoveryWindow& window : listing.windows) {
    windows.push_back({{"system_id", window.place.system_id},
                       {"timeline", window.timeline.value},
                       {"from", base::to_iso(window.from)},
                       {"from_lsn", postgres::to_string(window.from_lsn)},
                       {"to", base::to_iso(window.to)},
                       {"to_lsn", postgres::to_string(window.to_lsn)},
                       {"ends_in_hole", window.ends_in_hole}});
  }
  json timelines = json::array();
  for (const operations::ListedTimeline& timeline : listing.timelines) {
    timelines.push_back({{"timeline", timeline.timeline.value},
                         {"system_id", timeline.system_id},
                         {"history_missing", timeline.history_missing}});
  }
  json unreadable = json::array();
  for (const operations::UnreadableBackup& backup : listing.unreadable) {
    unreadable.push_back({{"id", backup.id.text}, {"why", backup.why}});
  }
  json gaps = json::array();
  for (const repository::Gap& gap : listing.gaps) {
    gaps.push_back({{"timeline", gap.timeline},
                    {"from_lsn", postgres::to_string(postgres::Lsn{gap.from})},
                    {"to_lsn", postgres::to_string(postgres::Lsn{gap.to})},
                    {"found", base::to_iso(gap.found)},
                    {"why", gap.why}});
  }
  return {{"backups", backups},     {"recovery_windows", windows}, {"gaps", gaps},
          {"timelines", timelines}, {"unreadable", unreadable},    {"warnings", listing.warnings}};
}

void print(const operations::Listing& listing) {
  if (listing.backups.empty()) {
    std::cout << "No backups.\n";
  } else {
    std::cout << fmt::format("{:<21}  {:<8} {:<24}  {:>10}  {:>10}  {:>4}  {}\n", "BACKUP", "STATE",
                             "RESTORES FROM", "SIZE", "STORED", "TLI", "LSN");
  }
  for (const operations::BackupInfo& backup : listing.backups) {
    const auto whole = std::chrono::floor<std::chrono::seconds>(backup.stopped);
    std::cout << fmt::format("{:<21}  {:<8} {:<24}  {:>10}  {:>10}  {:>4}  {}\n", backup.id.text,
                             backup.is_damaged() ? "DAMAGED" : "good", base::to_string(whole),
                             base::size_text(backup.bytes), base::size_text(backup.stored_bytes),
                             backup.timeline.value, postgres::to_string(backup.stop));
  }
  for (const operations::UnreadableBackup& backup : listing.unreadable) {
    std::cout << fmt::format("{:<21}  UNREADABLE\n", backup.id.text);
  }
  for (const operations::RecoveryWindow& window : listing.windows) {
    std::cout << "\nRecovery window " << operations::to_string(window) << "\n";
  }
  for (const repository::Gap& gap : listing.gaps) {
    std::cout << fmt::format("\nGAP  WAL from {} to {} of timeline {} is lost: {} (found {})\n",
                             postgres::to_string(postgres::Lsn{gap.from}),
                             postgres::to_string(postgres::Lsn{gap.to}), gap.timeline, gap.why,
                             base::to_string(std::chrono::floor<std::chrono::seconds>(gap.found)));
  }
}

void list(Invocation& invocation) {
  const operations::Configuration configuration = invocation.configuration();
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const operations::Listing listing = operations::list(site);
  for (const std::string& warning : listing.warnings) print_warning(warning);
  if (!listing.unreadable.empty()) invocation.exit_status = base::info(Code::corrupt).exit_status;
  if (invocation.json) return print_json(to_json(listing));
  print(listing);
}

}  // namespace

void add_list(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, "list", "Show backups, the recovery window, and gaps",
              {Code::corrupt, Code::key, Code::not_found}, [&invocation] { list(invocation); });
}

}  // namespace holdfast::cli
