#pragma once

// The configuration of a restored directory: so that a server starts from this directory alone,
// with the settings of the source, and touches nothing of the source's.
//
// postgresql.conf, pg_hba.conf and pg_ident.conf stand in the directory itself; what they include,
// and certificates and keys, if they were outside of the source's data directory, below
// holdfast.config. Whatever names a file is changed to name its copy, relative, so the directory
// can be moved. Commented out is what would lead to the source: data_directory, hba_file,
// ident_file, external_pid_file, and includes of files that the backup does not have. The next
// backup takes all this as ordinary files.

#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "repository/page_map.h"

namespace holdfast::operations {

struct RestoredConfiguration {
  std::map<std::string, std::string> settings;  ///< that count, by name
  std::vector<std::string> notes;               ///< what is not as it was in the source
};

/// Works on a directory whose files have been restored, before recovery is set up in it. Not
/// durable. New files belong to `owner`.
RestoredConfiguration place_configuration(const repository::BackupMap& map,
                                          const base::fs::path& directory,
                                          const std::string& owner);

}  // namespace holdfast::operations
