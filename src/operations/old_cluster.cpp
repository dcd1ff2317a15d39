#include "operations/old_cluster.h"

#include "base/error.h"
#include "operations/instant_mount.h"
#include "postgres/control_file.h"
#include "postgres/data_directory.h"
#include "postgres/session.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

bool is_gone(const path& directory) {
  return !base::status_of(directory);
}

/// A directory, and what an instant restore keeps beside it. A mount is taken down before.
void rename_cluster(const path& from, const path& to) {
  const InstantPlace mounted = instant_place(from);
  if (read_instant(mounted)) unmount_instant(mounted);
  // The state first: a directory whose state is gone is an empty one, and nothing starts on it.
  for (const auto& [old_name, new_name] :
       {std::pair(mounted.state(), instant_place(to).state()), std::pair(from, to)}) {
    if (is_gone(old_name)) continue;
    std::error_code failed;
    base::fs::rename(old_name, new_name, failed);
    if (failed) {
      throw Error(Code::refused,
                  fmt::format("could not rename \"{}\" to \"{}\": {}", old_name.string(),
                              new_name.string(), failed.message()),
                  "stop the old server and put its directory aside by hand, or name another place "
                  "for the restored cluster: [recover] directory");
    }
  }
  base::sync_directory(from.parent_path());
}

/// So that what was committed last is archived. It may be unable to; then what is there counts.
void switch_wal(const ClusterConfiguration& cluster) {
  try {
    postgres::Session session(cluster.connection);
    if (!session.in_recovery()) session.query("SELECT pg_switch_wal()");
  } catch (const Error& error) {
    if (error.code() == Code::interrupted) throw;
  }
}

/// Nobody may answer any more where clients look for the old cluster.
void check_silence(const RecoveryContext& context) {
  const ClusterConfiguration& cluster = context.cluster();
  if (!postgres::somebody_answers(cluster.connection)) return;
  throw Error(Code::refused,
              fmt::format("a server still answers where cluster {} is looked for", cluster.name),
              "it is not on this machine, or not in data_directory: stop it, or say how in "
              "[recover.command] fence = \"...\"");
}

/// Empty if it cannot be told.
std::string system_in(const path& directory) {
  try {
    return postgres::to_string(postgres::read_control_file(directory).control.system_id);
  } catch (const Error&) {
    return {};
  }
}

/// Throws what is wrong with it.
void examine(const path& directory, const std::string& system) {
  const int major = postgres::major_version(directory);
  const postgres::ControlFile control = postgres::read_control_file(directory).control;
  if (!system.empty() && postgres::to_string(control.system_id) != system) {
    base::fail(Code::refused, "it is system {}, and was {}", postgres::to_string(control.system_id),
               system);
  }
  const auto must_be_there = [](const path& name) {
    if (!base::status_of(name)) base::fail(Code::not_found, "\"{}\" is gone", name.string());
  };
  for (const char* name : {"base", "global/pg_filenode.map", "pg_xact"})
    must_be_there(directory / name);
  const postgres::Segment segment =
      postgres::segment_at(control.timeline, control.redo, control.wal_segment_size);
  must_be_there(directory / "pg_wal" / postgres::file_name(segment, control.wal_segment_size));
  const std::string version = fmt::format("PG_{}_{}", major, control.catalog_version);
  for (const postgres::Tablespace& each : postgres::linked_tablespaces(directory)) {
    must_be_there(path(each.location) / version);
  }
}

}  // namespace

bool old_cluster_is_in_place(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  if (recovery.directory != old_place_of(context.cluster())) return false;
  if (!recovery.old_directory.empty()) return is_gone(recovery.old_directory);
  // Not put aside: either that was not come to, or there was nothing to put aside.
  const StepRecord& restore = recovery.at(RecoveryStep::restore);
  return recovery.at(RecoveryStep::fence).state == StepState::done
             ? !restore.begun_once()
             : restore.state != StepState::done;
}

std::string why_it_cannot_start(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  if (recovery.old_directory.empty()) return {};
  const path directory =
      is_gone(recovery.old_directory) ? old_place_of(context.cluster()) : recovery.old_directory;
  // What a mount has can be seen once it is mounted again.
  if (read_instant(instant_place(directory))) return {};
  try {
    examine(directory, recovery.old_system);
    return {};
  } catch (const Error& error) {
    if (error.code() == Code::interrupted) throw;
    return error.message();
  }
}

path old_place_of(const ClusterConfiguration& cluster) {
  path place = cluster.data_directory.lexically_normal();
  if (place.empty()) return place;
  if (!place.has_filename()) place = place.parent_path();
  // Also where it leads to nothing: that may have been renamed by us.
  constexpr int most_links = 40;
  for (int i = 0; i < most_links && base::fs::is_symlink(place); ++i) {
    place = (place.parent_path() / base::fs::read_symlink(place)).lexically_normal();
    if (!place.has_filename()) place = place.parent_path();
  }
  return place;
}

std::string fencing_plan(const RecoveryContext& context) {
  const path directory = old_place_of(context.cluster());
  if (directory.empty() || is_gone(directory)) {
    return "make sure that the old cluster does not answer any more. If it is on another machine, "
           "by going on you say that it is gone for good";
  }
  return fmt::format("{}rename {} to {}.before-ID",
                     server_process(directory) ? "stop the server and " : "", directory.string(),
                     directory.string());
}

StepResult fence_old_cluster(const RecoveryContext& context) {
  Recovery& recovery = context.recovery();
  const ClusterConfiguration& cluster = context.cluster();
  const path directory = old_place_of(cluster);
  std::string found;
  const auto names = directory.empty() ? std::nullopt : base::directory_names(directory);
  if (names && !names->empty()) {
    if (server_process(directory)) {
      recovery.old_served = true;
      context.journal.save();
      switch_wal(cluster);
      stop_server(directory, context.settings().limit(RecoveryStep::fence) / 2);
      found = "stopped the old server; ";
    }
    if (recovery.old_directory.empty()) recovery.old_system = system_in(directory);
    recovery.old_directory = directory.string() + ".before-" + recovery.id;
    context.journal.save();
    rename_cluster(directory, recovery.old_directory);
  }
  check_silence(context);
  if (!recovery.old_directory.empty()) {
    return {false,
            fmt::format("{}its directory is now {}", found, recovery.old_directory.string())};
  }
  return {false, "the old cluster is not on this machine, and does not answer"};
}

void bring_old_cluster_back(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  if (!recovery.directory.empty() && !is_gone(recovery.directory)) {
    if (!old_cluster_is_in_place(context)) {
      stop_server(recovery.directory, std::chrono::minutes(2));
      rename_cluster(recovery.directory, recovery.directory.string() + ".undone-" + recovery.id);
    }
  }
  if (recovery.old_directory.empty() || is_gone(recovery.old_directory)) return;
  rename_cluster(recovery.old_directory, old_place_of(context.cluster()));
}

}  // namespace holdfast::operations
