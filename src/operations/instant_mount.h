#pragma once

// An instant restore on disk, and the process that serves it.
//
// The restored directory DIR is a mount point; everything that becomes local, and all that must be
// remembered, is in DIR.holdfast beside it, on the same file system:
//
//   description   what is mounted: backup, repository, tablespaces
//   data/         the files that are local; in the end it takes DIR's place (`settle`)
//   pg_control    kept apart, so that no server starts on data/ alone
//   journal       which pages are local (mount/journal.h)
//   lock          held by the process that serves; names it
//   progress      how far the hydrator is
//   paused        as long as it is there the hydrator rests
//   files         names of the backup's files, each ended by a zero byte; whole if there is:
//   complete      everything is local
//   log           what went wrong
//
// The process may die at any time. Then the kernel answers with errors whoever uses DIR;
// mount_again() clears that away and goes on where it ended.

#include <map>
#include <string>

#include "base/report.h"
#include "operations/catalog.h"

namespace holdfast::operations {

/// The places of one instant restore.
struct InstantPlace {
  base::fs::path directory;  ///< absolute

  base::fs::path state() const { return directory.string() + ".holdfast"; }
  base::fs::path part(std::string_view name) const { return state() / name; }
  base::fs::path data() const { return part("data"); }
  base::fs::path control() const { return part("pg_control"); }
};
/// For a directory as a user names it.
InstantPlace instant_place(const base::fs::path& directory);

struct InstantDescription {
  repository::BackupId backup;
  repository::ClusterPlace place;
  std::string repository;  ///< its name in the configuration
  base::fs::path configuration;
  std::map<std::string, base::fs::path> tablespaces;  ///< by link: "pg_tblspc/16390"
  std::vector<base::fs::path> of_replay;  ///< where replay puts tablespaces that it makes
  std::string owner;                      ///< of the data directory, "user:group"
  /// The mount ends when this process does, and nothing is brought that nobody reads.
  std::optional<pid_t> keeper;
};
/// Makes the state of a new instant restore: directories, and what the description says.
void prepare_instant(const InstantPlace& place, const InstantDescription& description,
                     const repository::BackupMap& map);
/// nullopt if `place` is no instant restore.
std::optional<InstantDescription> read_instant(const InstantPlace& place);
/// The same; throws Error(not_found) if it is none.
InstantDescription existing_instant(const InstantPlace& place);

struct InstantStatus {
  bool mounted = false;
  bool complete = false;
  bool paused = false;
  std::uint64_t done = 0;   ///< bytes that are local
  std::uint64_t total = 0;  ///< bytes of the backup
  std::string trouble;      ///< why the hydrator does not get on
};
InstantStatus instant_status(const InstantPlace& place);

/// The process that serves it; nullopt if it is not mounted.
std::optional<pid_t> serving_process(const InstantPlace& place);

/// Mounts it in a process of its own, which serves until it is told to stop or dies. On return it
/// serves. Must be called while this process has one thread.
void mount_again(const InstantPlace& place);
/// The same from a process that may have several: by running this program.
void start_mount_process(const InstantPlace& place);
/// Ends the process that serves, if there is one: all that was written is durable, and nothing is
/// mounted.
void unmount_instant(const InstantPlace& place);
/// Unmounts and removes all of it, also what was changed.
void discard_instant(const InstantPlace& place);
/// Lets the hydrator rest, or go on.
void pause_hydration(const InstantPlace& place, bool paused);
/// Waits until everything is local, or throws Error(interrupted).
void wait_until_hydrated(const InstantPlace& place, base::Progress& progress);

/// A server runs on the directory.
bool server_runs_on(const base::fs::path& directory);

}  // namespace holdfast::operations
