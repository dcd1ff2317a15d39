#include "operations/old_cluster.h"

#include <signal.h>

#include <charconv>

#include "base/error.h"
#include "operations/instant_mount.h"
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

}  // namespace

std::optional<pid_t> server_process(const path& data_directory) {
  const auto bytes = base::read_file(data_directory / "postmaster.pid");
  if (!bytes) return std::nullopt;
  const std::string_view text = base::text(*bytes);
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  if (pid <= 1) return std::nullopt;
  // After a crash the number may be another's: a postmaster works in its data directory.
  std::error_code failed;
  const path works_in = base::fs::read_symlink(fmt::format("/proc/{}/cwd", pid), failed);
  if (failed || works_in != base::fs::canonical(data_directory, failed)) return std::nullopt;
  return pid;
}

void stop_server(const path& data_directory, base::Microseconds limit) {
  for (const auto& [number, share] :
       {std::pair(SIGINT, limit / 2), std::pair(SIGQUIT, limit / 2)}) {
    const auto pid = server_process(data_directory);
    if (!pid) return;
    if (::kill(*pid, number) != 0 && errno != ESRCH) {
      base::fail_errno(fmt::format("stop the server in \"{}\"", data_directory.string()), errno);
    }
    if (await_step(share, [&] { return server_process(data_directory) != pid; })) return;
  }
  throw Error(Code::busy,
              fmt::format("the server in \"{}\" does not stop", data_directory.string()),
              "look at its log; kill it by hand");
}

std::string fencing_plan(const RecoveryContext& context) {
  const path& directory = context.cluster().data_directory;
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
  const path& directory = cluster.data_directory;
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
    const bool is_old_again = !recovery.old_directory.empty() && is_gone(recovery.old_directory) &&
                              recovery.directory == context.cluster().data_directory;
    if (!is_old_again) {
      stop_server(recovery.directory, std::chrono::minutes(2));
      rename_cluster(recovery.directory, recovery.directory.string() + ".undone-" + recovery.id);
    }
  }
  if (recovery.old_directory.empty() || is_gone(recovery.old_directory)) return;
  rename_cluster(recovery.old_directory, context.cluster().data_directory);
}

}  // namespace holdfast::operations
