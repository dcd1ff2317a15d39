#include "operations/backup.h"

#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"
#include "operations/systems.h"

namespace holdfast::cli {

namespace {

using base::Code;

void print_damage(const operations::BackupInfo& backup) {
  for (const operations::DamagedFile& file : backup.damaged) {
    std::string pages;
    for (const std::uint64_t page : file.first) {
      pages += (pages.empty() ? "" : ", ") + std::to_string(page);
    }
    print_warning(fmt::format("\"{}\" has {} damaged pages: {}{}", file.path, file.pages, pages,
                              file.pages > file.first.size() ? ", ..." : ""));
  }
}

/// The newest of the system in use that began since then. A clock that was ahead must not keep
/// anybody from taking one.
std::optional<operations::BackupInfo> taken_since(const operations::Site& site,
                                                  base::Timestamp since) {
  const operations::Catalog catalog = operations::read_catalog(site);
  const bool several = site.repository.systems(site.cluster.name).size() > 1;
  const auto used = several ? operations::system_in_use(site.cluster) : std::nullopt;
  for (auto each = catalog.backups.rbegin(); each != catalog.backups.rend(); ++each) {
    if (several && used != each->place.system_id) continue;
    if (each->started >= since && each->started <= base::now()) return *each;
  }
  return std::nullopt;
}

void show_taken(Invocation& invocation, const operations::BackupInfo& backup) {
  if (backup.is_damaged()) invocation.exit_status = base::info(Code::damaged).exit_status;
  if (invocation.json) {
    nlohmann::json document = operations::to_json(backup);
    document["taken"] = false;
    return print_json(invocation, document);
  }
  std::cout << fmt::format("Backup {} began at {}: none is needed.\n", backup.id.text,
                           base::to_string(backup.started));
}

void backup(Invocation& invocation, const operations::Configuration& configuration,
            const operations::BackupRequest& request, const std::string& unless_since) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  if (!unless_since.empty()) {
    const auto taken = taken_since(site, base::parse_time(unless_since, "UTC").time);
    if (taken) return show_taken(invocation, *taken);
  }
  base::catch_interrupts();
  operations::BackupInfo made;
  const base::Timestamp begun = base::now();
  with_progress(invocation, [&](base::Progress& progress) {
    made = operations::take_backup(site, request, progress);
  });
  print_damage(made);
  if (made.is_damaged()) invocation.exit_status = base::info(Code::damaged).exit_status;
  const std::string compared =
      made.compared_with.empty()
          ? ""
          : fmt::format(" (compared with {} by {})", made.compared_with, made.compared);
  if (invocation.json) {
    nlohmann::json document = operations::to_json(made);
    document["taken"] = true;
    document["files_taken"] = nlohmann::json::array();
    for (const operations::TakenFiles& each : made.taken_files) {
      document["files_taken"].push_back({{"name", each.name},
                                         {"entries", each.entries},
                                         {"bytes", each.bytes},
                                         {"note", each.note}});
    }
    return print_json(invocation, document);
  }
  std::cout << fmt::format(
      "{} backup {} of {} in {}: {} in {} files, {} stored{}\n"
      "It can be restored to {} ({}) and, as far as WAL is archived, to any later moment.\n",
      made.is_damaged() ? "DAMAGED" : "Took", made.id.text, made.place.cluster,
      base::to_string_short(base::now() - begun), base::size_text(made.bytes), made.files,
      base::size_text(made.stored_bytes), compared, base::to_string(made.stopped),
      postgres::to_string(made.stop));
  for (const operations::TakenFiles& each : made.taken_files) {
    std::cout << fmt::format(
        "Files {}: {}\n", each.name,
        each.note.empty()
            ? fmt::format("{} in {} entries", base::size_text(each.bytes), each.entries)
            : "none taken: " + each.note);
  }
}

/// A repository that was down while others were not gets the WAL that it missed.
void catch_up(Invocation& invocation) {
  const auto each =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  if (each.size() < 2) return;
  const std::size_t files =
      operations::catch_up_everywhere(each, invocation.cluster, print_failure);
  if (files > 0) print_warning(fmt::format("copied {} WAL files between repositories", files));
}

}  // namespace

void add_backup(CLI::App& app, Invocation& invocation) {
  const auto request = std::make_shared<operations::BackupRequest>();
  const auto unless_since = std::make_shared<std::string>();
  CLI::App* command =
      add_command(app, invocation, "backup", "Take a backup now",
                  {Code::damaged, Code::busy, Code::unreachable, Code::foreign, Code::no_space,
                   Code::wal_missing},
                  [&invocation, request, unless_since] {
                    for_each_repository(invocation, [&](const operations::Configuration& each) {
                      backup(invocation, each, *request, *unless_since);
                    });
                    catch_up(invocation);
                  });
  const std::map<std::string, operations::BackupRequest::Compare> ways{
      {"auto", operations::BackupRequest::Compare::automatic},
      {"wal", operations::BackupRequest::Compare::wal},
      {"summaries", operations::BackupRequest::Compare::summaries},
      {"pages", operations::BackupRequest::Compare::pages},
      {"content", operations::BackupRequest::Compare::content},
      {"nothing", operations::BackupRequest::Compare::nothing}};
  command
      ->add_option_function<std::string>(
          "--compare",
          [request, ways](const std::string& way) {
            const auto found = ways.find(way);
            if (found == ways.end()) {
              throw base::Error(Code::usage, fmt::format("cannot compare by \"{}\"", way),
                                "use auto, wal, summaries, pages, content or nothing");
            }
            request->compare = found->second;
          },
          "How to find what changed since the previous backup: auto, wal, summaries, "
          "pages (their LSN), content (their hash), or nothing: store everything again")
      ->type_name("HOW");
  command->add_option("--label", request->label, "What PostgreSQL shall call the backup")
      ->type_name("TEXT");
  command
      ->add_option("--unless-since", *unless_since,
                   "None where one began since then: \"2026-11-23 02:00 UTC\"")
      ->type_name("TIME");
  add_workers(*command, request->workers);
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
