#pragma once

// Bringing the WAL that a backup needs into the archive from the pg_wal of a data directory that we
// read. The archiver may bring the same segments at the same time, before, or never: a backup does
// not depend on it. Through a replication connection stream_wal.h does this.

#include "operations/stream_wal.h"
#include "postgres/session.h"

namespace holdfast::operations {

/// Where segments are found, and who says which of them are whole.
struct WalFiles {
  const base::fs::path& data_directory;
  postgres::Session& session;
  /// A standby's pg_wal holds segments that are still arriving, under their final names, and it
  /// cannot end one: its primary must.
  bool standby = false;
};

/// Stores `wanted` and the history of its timeline; what the archive has already is compared, as it
/// may be of another life of the server. Throws Error(wal_missing) once it has waited for
/// `patience` and a segment is neither in pg_wal nor in the archive.
void store_wal(const repository::WalArchive& archive, const NeededWal& wanted,
               const WalFiles& files, unsigned workers, base::Progress& progress);

/// Looks whether the archive has all of `wanted`, and makes durable what others have stored of it:
/// an archiver that was killed, say. Throws Error(corrupt), saying that `backup` cannot be
/// finished.
void check_wal_stored(const repository::WalArchive& archive, const NeededWal& wanted,
                      const std::string& backup);

}  // namespace holdfast::operations
