#pragma once

// Files that go along with a backup: configuration, and what waits to be imported.
//
// [files.NAME] in holdfast.toml names a file or a directory. Each backup takes it as it is then,
// once the backup itself is committed; such a set lies in the repository under the backup's id,
// sealed like all else, for a time of its own (`keep`, a week unless it says otherwise), whatever
// becomes of the backup.
//
// This is for what is small and can be made again. Nothing here makes a backup fail: a path that is
// not there is a note, what cannot be read is left out and said, and what is too much is not taken,
// and that is said too. Nobody stands still for it: a file that was written to meanwhile is stored
// as it was read, and marked.
//
// Taken and given back are bytes, permissions, owners, times of change, and symbolic links as
// links; only the path of the configuration itself may be one that is followed. What is neither
// file, directory nor link is left out.

#include <optional>
#include <string>
#include <vector>

#include "base/report.h"
#include "operations/catalog.h"

namespace holdfast::operations {

/// No set is larger than this: who needs more needs a backup of his own for it.
constexpr std::uint64_t max_files_bytes = 1ULL << 30;
constexpr std::uint64_t max_files_entries = 100'000;

/// Takes all sets of the configuration; what went wrong is in the result and in `progress`.
std::vector<TakenFiles> take_files(const Site& site, const repository::ClusterPlace& place,
                                   const repository::BackupId& backup, base::Progress& progress);

/// A set in the repository.
struct FilesSet {
  std::string name;
  repository::BackupId backup;  ///< that it went along with
  repository::ClusterPlace place;
  bool readable = true;  ///< if not, the rest is not known
  std::string path;      ///< what was taken, as the configuration named it
  base::Timestamp taken;
  base::Timestamp until;       ///< it stays at least as long
  std::uint64_t entries = 0;   ///< files, directories and links
  std::uint64_t bytes = 0;     ///< of files
  std::uint64_t left_out = 0;  ///< entries that could not be read, or were of no kind that is taken
  std::uint64_t changed = 0;   ///< files that were written to while they were read
};

/// Those of all names, the oldest first.
std::vector<FilesSet> list_files(const Site& site);

/// Brings a set back as `destination`: that is what the path of the configuration becomes, file or
/// directory. `backup`: nullopt for the newest set of that name. Nothing may be there yet, and
/// nothing is until all of it is durable: it grows beside it, in a directory that nobody else can
/// enter. What a set names never leaves that directory, whoever wrote the set. Throws
/// Error(not_found) if there is no such set, Error(refused) if the destination exists,
/// Error(corrupt) for a set that is damaged or hostile; then nothing is left behind.
FilesSet restore_files_set(const Site& site, const std::string& name,
                           const std::optional<repository::BackupId>& backup,
                           const base::fs::path& destination);

}  // namespace holdfast::operations
