#include "operations/recovery_files.h"

#include <fcntl.h>

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "operations/restore_files.h"
#include "postgres/backup_label.h"
#include "postgres/recovery_settings.h"

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

postgres::Settings recovery_settings(const Site& site, const RestorePlan& plan,
                                     const RecoveryFilesRequest& request) {
  postgres::Settings settings;
  if (request.mounted && plan.backup.server_version >= 140000) {
    settings.emplace_back(mounted_setting, "syncfs");
  }
  // So that replay goes on if it comes upon one that `wal fetch` had it make.
  if (plan.backup.server_version >= in_place_version(plan.backup.server_version)) {
    settings.emplace_back("allow_in_place_tablespaces", "on");
  }
  settings.emplace_back("archive_mode", "off");
  const bool to_target = !plan.replay_everything && plan.target.kind != Kind::latest;
  settings.emplace_back("restore_command",
                        restore_command(site, plan.backup.place.system_id, to_target));
  settings.emplace_back("recovery_target_timeline", std::to_string(plan.history.timeline().value));
  if (!to_target) return settings;
  switch (plan.target.kind) {
    case Kind::latest:
      break;
    case Kind::immediate:
      settings.emplace_back("recovery_target", "immediate");
      break;
    case Kind::time: {
      std::string time = base::to_iso(plan.target.time);
      time.back() = '+';  // "Z" as an offset, which every PostgreSQL reads
      settings.emplace_back("recovery_target_time", time + "00");
      break;
    }
    case Kind::lsn:
      settings.emplace_back("recovery_target_lsn", postgres::to_string(plan.target.lsn));
      break;
    case Kind::transaction:
      settings.emplace_back("recovery_target_xid", std::to_string(plan.target.transaction));
      break;
    case Kind::name:
      settings.emplace_back("recovery_target_name", plan.target.name);
      break;
  }
  settings.emplace_back("recovery_target_inclusive", plan.target.inclusive ? "on" : "off");
  settings.emplace_back("recovery_target_action", request.action);
  return settings;
}

void write_settings(const Site& site, const RestorePlan& plan, const RecoveryFilesRequest& request,
                    const std::string& owner) {
  const path file = request.directory / "postgresql.auto.conf";
  const auto before = base::read_file(file);
  const std::string edited = postgres::edit_settings(
      before ? base::text(*before) : "", postgres::recovery_setting_names(),
      recovery_settings(site, plan, request),
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

/// Configuration from outside goes below holdfast.config; if the directory has no postgresql.conf
/// of its own it gets one that includes it, so that the server can be started from this directory
/// alone.
void write_outside_configuration(const repository::BackupMap& map, const path& directory,
                                 const std::string& owner) {
  const path copies = directory / "holdfast.config";
  for (const repository::Attachment& attachment : map.attachments) {
    if (!attachment.name.starts_with("config/")) continue;
    const path name = copies / attachment.name.substr(7);
    base::make_directories(name.parent_path());
    for (path up = name.parent_path(); up != directory; up = up.parent_path()) give_to(up, owner);
    write_file(name, base::text(attachment.content), owner);
  }
  const repository::Attachment* main = map.attachment("config_file");
  if (main == nullptr || base::status_of(directory / "postgresql.conf")) return;
  const auto copy_of = [&](const repository::Attachment& which) {
    return "holdfast.config" + std::string(base::text(which.content));
  };
  const auto quoted = [](const std::string& text) { return postgres::quote_setting(text); };
  std::string text = fmt::format(
      "# Written by holdfast restore: the source kept its configuration outside of its data\n"
      "# directory. It is copied below holdfast.config, and used from there.\n"
      "include = {}\n"
      "data_directory = {}\n"
      "external_pid_file = ''\n",
      quoted(copy_of(*main)), quoted(directory.string()));
  for (const char* name : {"hba_file", "ident_file"}) {
    const repository::Attachment* which = map.attachment(name);
    if (which != nullptr) {
      text += fmt::format("{} = {}\n", name, quoted((directory / copy_of(*which)).string()));
    }
  }
  write_file(directory / "postgresql.conf", text, owner);
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

void write_recovery_files(const Site& site, const RestorePlan& plan,
                          const repository::BackupMap& map, const RecoveryFilesRequest& request) {
  const std::string owner = owner_of_directory(map);
  write_file(request.directory / "backup_label", required_attachment(map, "backup_label"), owner);
  write_tablespace_map(map, request, owner);
  write_settings(site, plan, request, owner);
  write_outside_configuration(map, request.directory, owner);
}

}  // namespace holdfast::operations
