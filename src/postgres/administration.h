#pragma once

// Looking at a server's settings and changing them: what `doctor` and `backup` ask.

#include <optional>
#include <string>
#include <vector>

#include "postgres/session.h"

namespace holdfast::postgres {

/// All files that the server's configuration was read from: config_file, those that it includes,
/// hba_file and ident_file. Only what this role may see; empty without pg_read_all_settings.
std::vector<std::string> configuration_files(Session& session);

/// What pg_control says, asked from the server: all but `state`.
ControlFile control_data(Session& session);

/// Of a standby: a time up to which all that was committed has been replayed. (That of the last
/// replayed commit; if none was replayed since the server started, of its last checkpoint.)
base::Timestamp replayed_until(Session& session);

/// A file of the server's, if this role may read it (pg_read_server_files); else nullopt.
std::optional<base::Bytes> read_server_file(Session& session, const std::string& path);

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
