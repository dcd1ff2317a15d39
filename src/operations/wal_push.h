#pragma once

// `wal push`: PostgreSQL's archive_command, and what a backup does for the WAL that it needs.

#include <string>

#include "operations/catalog.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

struct PushOutcome {
  std::string name;
  bool was_there = false;  ///< the archive had the same bytes already
  std::uint64_t bytes = 0;
};

/// Checks a WAL file and makes it durable in the archive of the system that it belongs to (INV-4,
/// INV-5). `path` is what PostgreSQL puts for %p; its last part must be a name that PostgreSQL
/// gives to WAL files. A segment or partial segment must be one of a registered system of the
/// cluster; history and backup files, which name no system, belong to the one whose data directory
/// they come from
/// (`data_directory`: two levels above the file if it is in a pg_wal, else the configured one).
PushOutcome push_wal(const Site& site, const base::fs::path& path, unsigned workers);

/// The same for a file whose system is known, and whose content was read already.
PushOutcome push_wal_of(const repository::WalArchive& archive, postgres::SystemId system,
                        const base::fs::path& path, base::View bytes, unsigned workers);

}  // namespace holdfast::operations
