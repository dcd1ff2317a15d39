#pragma once

// backup_label and tablespace_map (xlogbackup.c, xlogrecovery.c): what pg_backup_stop returns.

#include <string>
#include <string_view>
#include <vector>

#include "postgres/data_directory.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

struct BackupLabel {
  Lsn start;               ///< START WAL LOCATION
  std::string start_file;  ///< the segment named there
  Lsn checkpoint;          ///< CHECKPOINT LOCATION
  Timeline timeline;       ///< START TIMELINE
  bool from_standby = false;
  std::string label;
};
/// Throws Error(corrupt) if a line that must be there is not.
BackupLabel parse_backup_label(std::string_view text);

/// The label without what says that the files are only a part, of an incremental backup, and need
/// an earlier one (INCREMENTAL FROM ...): for who has put the two together.
std::string whole_backup_label(std::string_view text);

/// "OID LOCATION" lines; a backslash, newline or carriage return in a location is escaped by a
/// backslash.
std::vector<Tablespace> parse_tablespace_map(std::string_view text);
std::string write_tablespace_map(const std::vector<Tablespace>& tablespaces);

}  // namespace holdfast::postgres
