#pragma once

// The files that tell a restored server to recover: backup_label, tablespace_map, recovery.signal,
// and settings, in a configuration that stands on its own (restored_configuration.h).
//
// Every setting that steers recovery is written, as it is by default where nothing is meant, so
// that what the source had in other files cannot bend it. `doctor --fix` and `recover` take them
// away once recovery is over. Limits that replay needs stay: standbys need them, too.

#include <map>
#include <string>

#include "operations/restore_plan.h"
#include "operations/restored_configuration.h"
#include "postgres/replay_record.h"
#include "repository/page_map.h"

namespace holdfast::operations {

struct RecoveryFilesRequest {
  base::fs::path directory;
  std::map<std::string, base::fs::path> tablespaces;  ///< by link: "pg_tblspc/16390"
  std::string action;
  /// The directory is an instant restore: a starting server must not open every file to sync it.
  bool mounted = false;
  /// That the server must have, or replay pauses for ever.
  postgres::ServerLimits limits;
};
/// What is set in postgresql.auto.conf for that, and not meant to stay.
constexpr std::string_view mounted_setting = "recovery_init_sync_method";

/// Writes them into a restored directory. Not synced: the restore syncs all at once.
RestoredConfiguration write_recovery_files(const Site& site, const RestorePlan& plan,
                                           const repository::BackupMap& map,
                                           const RecoveryFilesRequest& request);

/// Who the data directory belonged to, "user:group".
std::string owner_of_directory(const repository::BackupMap& map);

/// For the shell inside a PostgreSQL command setting: quoted only where it must be, and with every
/// "%" doubled.
std::string shell_quoted(const std::string& text);

/// The restore_command for backups of one system: absolute paths, quoted for the shell.
/// `to_target`: recovery has a target (FetchRequest::to_target).
std::string restore_command(const Site& site, const std::string& system_id, bool to_target);

}  // namespace holdfast::operations
