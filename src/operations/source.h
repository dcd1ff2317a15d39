#pragma once

// What a backup, `init` and `doctor` must know of a running cluster before they do anything.

#include <vector>

#include "operations/catalog.h"
#include "postgres/session.h"

namespace holdfast::operations {

struct Source {
  repository::ClusterPlace place;
  postgres::ControlFile control;
  std::string version_directory;  ///< of tablespaces: "PG_15_202209061"
  /// Configuration that lives outside of the data directory (Debian keeps it in /etc), as
  /// attachments "config/ABSOLUTE/PATH", and which of them is which as "config_file", "hba_file"
  /// and "ident_file" (TRAPS RS11).
  std::vector<repository::Attachment> configuration_files;
  bool standby = false;
  std::vector<std::string> warnings;  ///< what the backup will lack
};

/// Checks that connection and data directory (if there is one) mean one server, of a version that
/// we know, which is registered in the repository, and whose WAL is good for backups. Throws with
/// the way out.
Source examine_source(const Site& site, postgres::Session& session);

/// What pg_control says, after checking that connection and data directory mean one system. Without
/// a data directory the server is asked.
postgres::ControlFile matching_control_file(const ClusterConfiguration& cluster,
                                            postgres::Session& session);

}  // namespace holdfast::operations
