#include "operations/recovery_files.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/process.h"
#include "operations/restore_files.h"
#include "postgres/backup_label.h"
#include "postgres/neutral_settings.h"

namespace holdfast::operations {

namespace {

using base::fs::path;
using Kind = RecoveryTarget::Kind;

}  // namespace

std::string shell_quoted(const std::string& text) {
  const bool plain = std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/._-+=:@,").find(c) != std::string_view::npos;
  });
  if (plain && !text.empty()) return text;
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else if (c == '%') {
      out += "%%";
    } else {
      out += c;
    }
  }
  return out + "'";
}

namespace {

std::string required_attachment(const repository::BackupMap& map, std::string_view name) {
  const repository::Attachment* attachment = map.attachment(name);
  if (attachment == nullptr) base::fail(base::Code::corrupt, "the backup's map holds no {}", name);
  return std::string(base::text(attachment->content));
}

void write_file(const path& name, std::string_view content, const std::string& owner,
                mode_t mode = 0600) {
  const base::Fd file = base::open_file(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode);
  base::write_all(file, base::view(content), name);
  give_to(name, owner);
}

/// The first release of a major version that knows allow_in_place_tablespaces.
int in_place_version(int server_version) {
  if (server_version >= 150000) return 150000;
  return server_version >= 140000 ? 140005 : 130008;
}

/// The target, or none.
postgres::Settings target_settings(const RestorePlan& plan) {
  switch (plan.target.kind) {
    case Kind::latest:
      break;
    case Kind::immediate:
      return {{"recovery_target", "immediate"}};
    case Kind::time: {
      std::string time = base::to_iso(plan.target.time);
      time.back() = '+';  // "Z" as an offset, which every PostgreSQL reads
      return {{"recovery_target_time", time + "00"}};
    }
    case Kind::lsn:
      return {{"recovery_target_lsn", postgres::to_string(plan.target.lsn)}};
    case Kind::transaction:
      return {{"recovery_target_xid", std::to_string(plan.target.transaction)}};
    case Kind::name:
      return {{"recovery_target_name", plan.target.name}};
  }
  return {};
}

/// What must be set for a server with these settings, so that it can replay WAL with such limits.
postgres::Settings raised_limits(const std::map<std::string, std::string>& settings,
                                 const postgres::ServerLimits& limits) {
  struct Limit {
    const char* name;
    std::uint32_t wanted;
    std::uint32_t otherwise;  ///< the server's default
  };
  postgres::Settings raised;
  for (const Limit& limit :
       {Limit{"max_connections", limits.max_connections, 100},
        Limit{"max_worker_processes", limits.max_worker_processes, 8},
        Limit{"max_wal_senders", limits.max_wal_senders, 10},
        Limit{"max_prepared_transactions", limits.max_prepared_transactions, 0},
        Limit{"max_locks_per_transaction", limits.max_locks_per_transaction, 64}}) {
    std::uint32_t has = limit.otherwise;
    if (const auto found = settings.find(limit.name); found != settings.end()) {
      // A form that we do not read (0x40) counts as too little: then the limit is set, no harm.
      const std::string& text = found->second;
      const auto read = std::from_chars(text.data(), text.data() + text.size(), has);
      if (read.ec != std::errc() || read.ptr != text.data() + text.size()) has = 0;
    }
    if (limit.wanted > has) raised.emplace_back(limit.name, std::to_string(limit.wanted));
  }
  return raised;
}

postgres::Settings recovery_settings(const Site& site, const RestorePlan& plan,
                                     const RecoveryFilesRequest& request,
                                     const RestoredConfiguration& configuration) {
  postgres::Settings settings;
  if (request.mounted && plan.backup.server_version >= 140000) {
    settings.emplace_back(mounted_setting, "syncfs");
  }
  const bool to_target = !plan.replay_everything && plan.target.kind != Kind::latest;
  // The target comes last: the server refuses one target after another, but not after an empty one.
  for (auto& each : postgres::neutral_recovery_settings(plan.backup.server_version / 10000)) {
    settings.push_back(std::move(each));
  }
  const auto set = [&](const std::string& name, std::string value) {
    std::erase_if(settings, [&](const auto& each) { return each.first == name; });
    settings.emplace_back(name, std::move(value));
  };
  // So that replay goes on if it comes upon one that `wal fetch` had it make.
  if (plan.backup.server_version >= in_place_version(plan.backup.server_version)) {
    set("allow_in_place_tablespaces", "on");
  }
  set("archive_mode", "off");
  set("restore_command", restore_command(site, plan.backup.place.system_id, to_target));
  set("recovery_target_timeline", std::to_string(plan.history.timeline().value));
  for (auto& each : raised_limits(configuration.settings, request.limits)) {
    settings.push_back(std::move(each));
  }
  if (!to_target) return settings;
  set("recovery_target_inclusive", plan.target.inclusive ? "on" : "off");
  set("recovery_target_action", request.action);
  for (auto& [name, value] : target_settings(plan)) set(name, value);
  return settings;
}

void write_settings(const Site& site, const RestorePlan& plan, const RecoveryFilesRequest& request,
                    const RestoredConfiguration& configuration, const std::string& owner) {
  const path file = request.directory / "postgresql.auto.conf";
  const auto before = base::read_file(file);
  const std::string edited = postgres::edit_settings(
      before ? base::text(*before) : "", postgres::recovery_setting_names(),
      recovery_settings(site, plan, request, configuration),
      fmt::format("Written by holdfast restore of backup {}", plan.backup.id.text));
  write_file(file, edited, owner);
  write_file(request.directory / "recovery.signal", "", owner);
}

void write_tablespace_map(const repository::BackupMap& map, const RecoveryFilesRequest& request,
                          const std::string& owner) {
  const repository::Attachment* stored = map.attachment("tablespace_map");
  if (stored == nullptr) return;
  auto tablespaces = postgres::parse_tablespace_map(base::text(stored->content));
  for (postgres::Tablespace& tablespace : tablespaces) {
    const auto moved = request.tablespaces.find(fmt::format("pg_tblspc/{}", tablespace.oid));
    if (moved != request.tablespaces.end()) tablespace.location = moved->second.string();
  }
  write_file(request.directory / "tablespace_map", postgres::write_tablespace_map(tablespaces),
             owner);
}

}  // namespace

std::string owner_of_directory(const repository::BackupMap& map) {
  for (const repository::DirectoryEntry& directory : map.directories) {
    if (directory.path == "global") return directory.owner;
  }
  return {};
}

std::string restore_command(const Site& site, const std::string& system_id, bool to_target) {
  std::string repositories;
  for (const std::string& name : site.configuration.reachable) {
    repositories += " --repository " + shell_quoted(name);
  }
  return fmt::format(
      "{} --config {} wal fetch --cluster {} --system {}{} --tablespaces-in-place{} %f \"%p\"",
      shell_quoted(base::own_program().string()), shell_quoted(site.configuration.path.string()),
      site.cluster.name, system_id, to_target ? " --to-target" : "", repositories);
}

RestoredConfiguration write_recovery_files(const Site& site, const RestorePlan& plan,
                                           const repository::BackupMap& map,
                                           const RecoveryFilesRequest& request) {
  const std::string owner = owner_of_directory(map);
  write_file(request.directory / "backup_label", required_attachment(map, "backup_label"), owner);
  write_tablespace_map(map, request, owner);
  RestoredConfiguration configuration = place_configuration(map, request.directory, owner);
  write_settings(site, plan, request, configuration, owner);
  return configuration;
}

}  // namespace holdfast::operations
