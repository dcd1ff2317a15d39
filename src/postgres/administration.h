#pragma once

// Looking at a server's settings and changing them: what `doctor` and `backup` ask.

#include <optional>
#include <string>
#include <vector>

#include "postgres/session.h"

namespace holdfast::postgres {

/// What a server that is asked anew says of one of its settings.
struct SettingState {
  std::string value;
  std::string source;            ///< "configuration file", "command line", "database", ...
  std::string file;              ///< and line; empty if this role may not see it
  bool pending_restart = false;  ///< its files say something else, which waits for a restart
};
SettingState setting_state(Session& session, const std::string& name);

/// What configuration files say of a setting, whether it has taken effect or not.
struct FileSettings {
  std::optional<std::string> automatic;  ///< postgresql.auto.conf
  std::optional<std::string> other;      ///< the last of the others
};
FileSettings file_settings(Session& session, const std::string& name);
/// What is wrong with the files, so that the server does not take them; empty if nothing.
std::string file_errors(Session& session);

/// Settings of a primary that would lead the recovery of whatever is made from it: those
/// recovery_target_* that are not as they are by default, with where they are set. What has been
/// changed in the files and waits for a restart does not count.
std::vector<std::string> recovery_targets(Session& session);

/// What was set on the server's command line: names and values. Only what this role may see.
Rows settings_on_command_line(Session& session);

/// What pg_control says, asked from the server: all but `state`.
ControlFile control_data(Session& session);

/// Of a standby: a time up to which all that was committed has been replayed. (That of the last
/// replayed commit; if none was replayed since the server started, of its last checkpoint.)
base::Timestamp replayed_until(Session& session);

/// A file of the server's, and the names in a directory, sorted. The role needs
/// pg_read_server_files, and EXECUTE on pg_read_binary_file(text) and pg_ls_dir(text).
base::Bytes read_server_file(Session& session, const std::string& path);
std::vector<std::string> server_directory_names(Session& session, const std::string& directory);

/// ALTER SYSTEM SET; takes effect by reload() or by a restart.
void alter_system(Session& session, const std::string& name, const std::string& value);
/// ALTER SYSTEM RESET.
void reset_system_setting(Session& session, const std::string& name);
void reload(Session& session);
bool is_superuser(Session& session);

/// pg_stat_archiver.
struct ArchiverStatus {
  std::uint64_t archived = 0;
  std::uint64_t failed = 0;
  bool failing = false;     ///< the last thing that happened is a failure
  std::string last_failed;  ///< the file
};
ArchiverStatus archiver_status(Session& session);

/// pg_switch_wal(): lets the current segment be archived. Returns its last position.
Lsn switch_wal(Session& session);
/// pg_create_restore_point().
Lsn create_restore_point(Session& session, const std::string& name);

}  // namespace holdfast::postgres
