#pragma once

// `migrate`: a command that changes the database, run only once the way back is proven.
//
// In this order: a snapshot, pinned; all of it read back; a named restore point, made by the
// server; the WAL up to it in the repository, and a restore to it planned, which finds it there;
// the journal's entry; and only then the command. Whatever fails before that, the command is not
// started, and the pin is released again. What is committed until the command begins is behind the
// restore point and therefore not in what is restored to it: let nobody else write.
//
// With several repositories each gets its snapshot. One that fails is said; at least `[wal] copies`
// of them must have the way back.
//
// The command's arguments are not recorded anywhere, as they may hold secrets.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/report.h"
#include "operations/repositories.h"
#include "repository/migrations.h"

namespace holdfast::operations {

struct MigrationRequest {
  std::vector<std::string> command;
  std::string commit;                      ///< empty: HEAD of the working directory, if it has one
  std::optional<base::Microseconds> keep;  ///< default: [keep] snapshots
  /// How long the restore point may take to come into the repository.
  base::Microseconds archived_within = std::chrono::minutes(5);
  /// If it fails, restore into this directory. Empty: only say how.
  base::fs::path auto_restore;
  bool instant = false;  ///< that restore is a mount
  unsigned workers = 1;
  int output = 1;  ///< where the command's stdout goes
};

/// The way back, proven in one repository.
struct WayBack {
  std::string repository;  ///< its name
  repository::Migration migration;
};

/// One migration, in the order of its functions. It holds a lease on migrations while it lives.
class Migrating {
 public:
  /// `say` hears of repositories that fail where others go on, and of what failed after the command
  /// was started.
  Migrating(const std::vector<Configuration>& repositories, const std::string& cluster,
            const MigrationRequest& request, SayFailure say);
  ~Migrating();
  Migrating(const Migrating&) = delete;
  Migrating& operator=(const Migrating&) = delete;

  /// All that has to be there before the command may be started, the journal's entry last. Throws
  /// an Error if anything is not: then the command must not be run. Error(busy) while another
  /// migration runs.
  void prepare(base::Progress& progress);
  /// Runs the command, with our own streams and signals, and records how it ended: its exit status,
  /// or 128 + the signal that ended it; 126 or 127 if it could not be run.
  int run_command();
  /// What `auto_restore` asks for.
  RestoreOutcome restore(base::Progress& progress) const;

  std::vector<WayBack> ways_back() const;

 private:
  class Run;
  std::unique_ptr<Run> run_;
};

/// One that has no end either runs, as the lease on migrations tells, or was cut off, or its end
/// could not be written: the repository was away by then.
struct JournalEntry {
  repository::Migration migration;
  bool runs = false;

  bool has_unknown_end() const { return migration.readable && !migration.end && !runs; }
};

/// The journal of a cluster in one repository, the oldest first.
std::vector<JournalEntry> list_migrations(const Site& site);

/// The line that restores to a migration's restore point.
std::string restore_command(const Configuration& configuration, const std::string& cluster,
                            const repository::Migration& migration);

}  // namespace holdfast::operations
