#pragma once

// Where the tablespaces of a restored directory go: decided before anything is written, and never
// where somebody else's files are.
//
// A place is empty or not there, or it is the restored directory's own from before. That is known
// from `holdfast.places`, a file in the directory that names its places, and by file identity the
// directory itself and each of them: a copy of the directory owns nothing. Of the cluster's own
// data directory, and where the user names the place as well, the directory's link proves it. What
// a running server uses is nobody else's in any case. No two places are the same or within each
// other or the directory.

#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "operations/restore.h"
#include "repository/page_map.h"

namespace holdfast::operations {

constexpr std::string_view places_file = "holdfast.places";

/// By link: "pg_tblspc/16390".
using Places = std::map<std::string, base::fs::path>;

struct PlacesRequest {
  base::fs::path directory;  ///< that is restored; absolute
  /// The cluster's own data directory, if it is known.
  base::fs::path production;
  /// That replay makes and leaves, with their locations.
  std::vector<repository::LinkedDirectory> replayed;
};

struct TablespacePlaces {
  Places of_backup;
  Places of_replay;
};

/// Throws Error(refused) that names the place and why it is none; Error(usage) for a mapping that
/// means nothing.
TablespacePlaces choose_places(const PlacesRequest& request, const RestoreOptions& options,
                               const repository::BackupMap& map);

/// Makes the places that are missing, and notes in the directory that they are its own: to be
/// called before anything is written into one.
void note_places(const base::fs::path& directory, const TablespacePlaces& places,
                 const std::string& owner);

/// Whether a server that runs somewhere has its data directory or a tablespace there, in it or
/// around it, as far as we may look; other than the server of `own`.
bool is_used_by_a_server(const base::fs::path& place, const base::fs::path& own);

}  // namespace holdfast::operations
