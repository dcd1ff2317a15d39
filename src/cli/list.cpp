#include "operations/list.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;

const operations::Decision* decision_on(const operations::Listing& listing,
                                        const operations::BackupInfo& backup) {
  for (const operations::Decision& each : listing.decisions) {
    if (each.backup().id == backup.id && each.backup().place.system_id == backup.place.system_id) {
      return &each;
    }
  }
  return nullptr;  // committed while we looked
}

void add_retention(const operations::Listing& listing, const operations::BackupInfo& backup,
                   json& document) {
  json pins = json::array();
  for (const repository::Pin& pin : listing.pins) {
    if (pin.backup != backup.id) continue;
    json each = {{"pin", pin.id}, {"readable", pin.readable}};
    if (pin.readable) {
      each["made"] = base::to_iso(pin.made);
      each["until"] = base::to_iso(pin.until);
      each["reason"] = pin.reason;
    }
    pins.push_back(std::move(each));
  }
  document["pins"] = std::move(pins);
  const auto* decision = decision_on(listing, backup);
  document["kept_by"] = decision != nullptr ? decision->reasons : std::vector<std::string>();
  document["expires"] = decision != nullptr && !decision->kept();
}

std::string kept_text(const operations::Listing& listing, const operations::BackupInfo& backup) {
  const auto* decision = decision_on(listing, backup);
  if (decision == nullptr) return {};
  std::string text = decision->kept() ? "" : "goes with the next `holdfast expire`";
  for (const std::string& reason : decision->reasons) text += (text.empty() ? "" : "; ") + reason;
  return text;
}

json systems_json(const operations::Listing& listing) {
  const auto moment = [](const std::optional<base::Timestamp>& time) {
    return time ? json(base::to_iso(*time)) : json();
  };
  json systems = json::array();
  for (const operations::KnownSystem& each : listing.systems) {
    systems.push_back({{"system_id", each.place.system_id},
                       {"in_use", each.in_use},
                       {"server_version", each.server_version},
                       {"backups", each.backups},
                       {"last_backup", moment(each.last_backup)},
                       {"last_wal", moment(each.last_wal)}});
  }
  return systems;
}

json to_json(const operations::Listing& listing) {
  json backups = json::array();
  for (const operations::BackupInfo& backup : listing.backups) {
    backups.push_back(operations::to_json(backup));
    backups.back()["suspect"] = backup.is_suspect();
    if (backup.is_suspect()) backups.back()["suspicion"] = backup.suspicion;
    add_retention(listing, backup, backups.back());
  }
  json windows = json::array();
  for (const operations::RecoveryWindow& window : listing.windows) {
    windows.push_back({{"system_id", window.place.system_id},
                       {"timeline", window.timeline.value},
                       {"from", base::to_iso(window.from)},
                       {"from_lsn", postgres::to_string(window.from_lsn)},
                       {"to", base::to_iso(window.to)},
                       {"to_is_at_least", window.is_at_least},
                       {"to_lsn", postgres::to_string(window.to_lsn)},
                       {"ends_in_hole", window.ends_in_hole},
                       {"ends_in_break", window.ends_in_break}});
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
                    {"is_break", gap.is_break()},
                    {"found", base::to_iso(gap.found)},
                    {"why", gap.why}});
  }
  return {{"systems", systems_json(listing)}, {"backups", backups},
          {"recovery_windows", windows},      {"gaps", gaps},
          {"timelines", timelines},           {"unreadable", unreadable},
          {"warnings", listing.warnings}};
}

/// Only where there is more than one is it worth a word.
void print_systems(const operations::Listing& listing) {
  if (listing.systems.size() < 2) return;
  for (const operations::KnownSystem& each : listing.systems) {
    std::cout << fmt::format("System {}\n", operations::to_string(each));
  }
  std::cout << "\n";
}

void print(const operations::Listing& listing) {
  print_systems(listing);
  if (listing.backups.empty()) {
    std::cout << "No backups.\n";
  } else {
    std::cout << fmt::format("{:<21}  {:<8} {:<24}  {:>10}  {:>10}  {:>4}  {:<12} {}\n", "BACKUP",
                             "STATE", "RESTORES FROM", "SIZE", "STORED", "TLI", "LSN", "KEPT");
  }
  for (const operations::BackupInfo& backup : listing.backups) {
    const auto whole = std::chrono::floor<std::chrono::seconds>(backup.stopped);
    std::cout << fmt::format(
        "{:<21}  {:<8} {:<24}  {:>10}  {:>10}  {:>4}  {:<12} {}\n", backup.id.text,
        backup.is_damaged()   ? "DAMAGED"
        : backup.is_suspect() ? "SUSPECT"
                              : "good",
        base::to_string(whole), base::size_text(backup.bytes), base::size_text(backup.stored_bytes),
        backup.timeline.value, postgres::to_string(backup.stop), kept_text(listing, backup));
  }
  for (const operations::UnreadableBackup& backup : listing.unreadable) {
    std::cout << fmt::format("{:<21}  UNREADABLE\n", backup.id.text);
  }
  for (const operations::RecoveryWindow& window : listing.windows) {
    std::cout << "\nRecovery window " << operations::to_string(window) << "\n";
  }
  for (const repository::Gap& gap : listing.gaps) {
    const std::string from = postgres::to_string(postgres::Lsn{gap.from});
    const std::string what =
        gap.is_break()
            ? fmt::format("BREAK  WAL of timeline {} from {} on does not continue what is before",
                          gap.timeline, from)
            : fmt::format("GAP  WAL from {} to {} of timeline {} is lost", from,
                          postgres::to_string(postgres::Lsn{gap.to}), gap.timeline);
    std::cout << fmt::format("\n{}: {} (found {})\n", what, gap.why,
                             base::to_string(std::chrono::floor<std::chrono::seconds>(gap.found)));
  }
}

void list(Invocation& invocation, const operations::Configuration& configuration) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const operations::Listing listing = operations::list(site);
  for (const std::string& warning : listing.warnings) print_warning(warning);
  if (std::ranges::any_of(listing.backups, &operations::BackupInfo::is_suspect)) {
    invocation.exit_status = base::info(Code::check_failed).exit_status;
  }
  if (!listing.unreadable.empty()) invocation.exit_status = base::info(Code::corrupt).exit_status;
  if (invocation.json) return print_json(invocation, to_json(listing));
  print(listing);
}

}  // namespace

void add_list(CLI::App& app, Invocation& invocation) {
  CLI::App* command = add_command(
      app, invocation, "list", "Show backups, the recovery window, and gaps",
      {Code::check_failed, Code::corrupt, Code::key, Code::not_found}, [&invocation] {
        for_each_repository(invocation, [&](const operations::Configuration& configuration) {
          list(invocation, configuration);
        });
      });
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
