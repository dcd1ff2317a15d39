#pragma once

// `wal fetch`: PostgreSQL's restore_command.
//
// The answer "not found" ends recovery and promotes the server, so it is given only on proof
// (INV-6, pitfall B31): the repository is there, it does not have the file, and nothing behind the
// file shows that there must have been one. Everything else is an Error, which the command turns
// into an exit status that makes the server stop.
//
// The segment that was being written when the server was lost is put together from its slices and
// filled up with zeros, unless there is WAL behind it.
//
// Segments that will be asked for next are fetched ahead by a process of its own into
// pg_wal/holdfast.fetch, and published there by rename, so what can be seen is whole (pitfall B33).

#include <string>

#include "operations/catalog.h"

namespace holdfast::operations {

struct FetchRequest {
  std::string system_id;       ///< which system's WAL; empty: see fetch_wal
  std::string name;            ///< %f
  base::fs::path destination;  ///< %p
  bool ahead = true;           ///< fetch the next segments too
  /// Recovery has a target, and PostgreSQL (from 13 on) fails by itself if WAL ends before it. It
  /// reads ahead of what it replays, so it may ask for a missing segment behind the target: then
  /// "not found" lets it get there, and promotes nothing that has not.
  bool to_target = false;
  /// Only what is stored whole: another repository may have what this one has in part. Then
  /// "false" proves nothing.
  bool complete_only = false;
  /// For a restored directory: tablespaces that the WAL makes come into it, not to where they were
  /// made first, and may be in use (postgres/tablespaces_in_place.h). What is stored stays as it
  /// is.
  bool tablespaces_in_place = false;
};

/// Takes the file from what was fetched ahead, if it is there and more is: without asking any
/// repository.
bool fetch_spooled_wal(const FetchRequest& request);

/// True if the file is at its destination now; false if it provably does not exist. Where no system
/// is named it is that of the data directory that this runs in, as a restore_command does; else the
/// one that is meant (systems.h).
bool fetch_wal(const Site& site, const FetchRequest& request);

}  // namespace holdfast::operations
