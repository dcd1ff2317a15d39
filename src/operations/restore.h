#pragma once

// `restore`: a data directory that a server can be started on, and that will recover to the target.
//
// What makes it safe (INV-8): the directory must be empty (or --delta asked for); global/pg_control
// is written last, durably, after all else is durable, so that a half-restored directory cannot be
// started; and its checkpoint is made unusable, so that it cannot be started without backup_label
// either (pitfall B19). The restored server does not archive until it is told to.
//
// An instant restore is the same, but for the files: they are mounted, not written.

#include <string>
#include <vector>

#include "base/report.h"
#include "operations/restore_files.h"
#include "operations/restore_plan.h"

namespace holdfast::operations {

struct RestoreOptions {
  base::fs::path directory;
  RestoreRequest request;
  std::vector<std::string> tablespaces;  ///< "OID=DIRECTORY" or "OLD-DIRECTORY=DIRECTORY"
  /// Of those that replay makes. `free`: where they were, if nothing is there; else it is refused.
  /// `in_place`: in the data directory itself (pg_tblspc/OID). `spare`: where they were, if nothing
  /// is there, else below `spare_tablespaces`.
  enum class Replayed { free, in_place, spare };
  Replayed replayed = Replayed::free;
  base::fs::path spare_tablespaces;
  std::string action = "promote";  ///< at the target: promote, pause or shutdown
  bool delta = false;
  /// With `delta`: the directory may hold a cluster of this system, not of the backup's.
  std::string replace_system;
  /// Mount the backup instead of copying it (instant_mount.h). Where that cannot be, the ordinary
  /// restore is made, and a note says why.
  bool instant = false;
  /// The mount is for this process alone: it ends with it, and brings only what is read.
  std::optional<pid_t> keeper;
  /// False: for a cluster that is thrown away; a crash of this machine may take it.
  bool durable = true;
  /// If given: when it fails, what it wrote stays for another try with `delta`, and the directories
  /// that were empty before are added here. Tries that follow add theirs.
  std::vector<base::fs::path>* remains = nullptr;
  unsigned workers = 1;
};

struct RestoreOutcome {
  RestorePlan plan;
  base::fs::path directory;
  RestoreFilesResult files;
  bool instant = false;  ///< it is mounted, and being hydrated
  base::Microseconds duration{};
  std::vector<std::string> notes;
};

/// Removes all that is in these directories.
void empty_directories(const std::vector<base::fs::path>& directories);

RestoreOutcome restore(const Site& site, const RestoreOptions& options, base::Progress& progress);

}  // namespace holdfast::operations
