#pragma once

// The journal of one recovery: what was asked for, what is decided, which steps are done.
//
// It is a file in a directory of its own, replaced as a whole and durably after each change, so
// that a recovery that was killed goes on where it was. A step is written down as running before it
// does anything: on the next try it must expect its own traces. No secret is in it. While somebody
// works on a recovery the directory is locked.

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "operations/evidence.h"
#include "operations/recover_settings.h"
#include "operations/restore_plan.h"

namespace holdfast::operations {

enum class StepState { pending, running, done, skipped, failed };
std::string_view name_of(StepState state);

struct StepRecord {
  RecoveryStep step{};
  StepState state = StepState::pending;
  int tries = 0;
  base::Timestamp begun;      ///< of the last try
  base::Microseconds took{};  ///< of all tries that ended
  std::string found;          ///< what was done, or why not

  bool ended() const { return state == StepState::done || state == StepState::skipped; }
  /// Something may have been done.
  bool begun_once() const { return state != StepState::pending && state != StepState::skipped; }
};

enum class RecoveryEnd {
  open,       ///< it can be resumed
  recovered,  ///< all steps are done
  undone,     ///< it was taken back
};
std::string_view name_of(RecoveryEnd end);

struct Recovery {
  std::string id;
  std::string cluster;
  base::Timestamp begun;
  std::string by;
  RestoreRequest request;
  bool full = false;
  std::string identity;  ///< the file that opens the sealed secrets

  std::vector<StepRecord> steps;
  RecoveryEnd end = RecoveryEnd::open;
  bool undoing = false;  ///< `--undo` was begun: there is no way on but that
  std::vector<std::string> undo_done;

  // What steps found out for those after them.
  std::string backup;  ///< its id
  std::string system_id;
  std::string target;            ///< for people
  base::fs::path directory;      ///< of the restored cluster
  base::fs::path old_directory;  ///< where the old one was put; empty: nowhere
  bool old_served = false;       ///< a server ran on it
  std::string old_system;        ///< as its pg_control said; empty: it could not be read
  bool instant = false;
  std::vector<std::string> tablespaces;    ///< RestoreOptions::tablespaces
  std::uint32_t timeline = 0;              ///< the new one
  std::string lsn;                         ///< where it begins
  std::optional<base::Timestamp> serving;  ///< the service is back
  bool environment_written = false;
  std::optional<base::Microseconds> rpo;
  std::string rpo_how;
  std::vector<EvidenceCheck> checks;  ///< of `prove`
  std::string new_backup;
  /// Of `reconnect`: who served the tunnel before; and what was changed, with what it was.
  std::optional<std::vector<std::string>> connectors_before;
  std::map<std::string, std::string> edge_before;

  StepRecord& at(RecoveryStep step) { return steps.at(static_cast<std::size_t>(step)); }
  const StepRecord& at(RecoveryStep step) const { return steps.at(static_cast<std::size_t>(step)); }
};

nlohmann::json to_json(const Recovery& recovery);
/// Throws Error(corrupt).
Recovery recovery_of(const nlohmann::json& document);

class RecoveryJournal {
 public:
  /// A new one below `state`. Throws Error(busy) while somebody works on another one there,
  /// Error(conflict) if one of this cluster is open.
  static RecoveryJournal begin(const base::fs::path& state, Recovery recovery);
  /// The last one of a cluster, locked; throws Error(not_found), Error(busy).
  static RecoveryJournal last(const base::fs::path& state, const std::string& cluster);

  /// One that exists in memory alone, for looking at what would be done.
  static RecoveryJournal only_planned(Recovery recovery) { return {{}, {}, std::move(recovery)}; }

  Recovery& recovery() { return recovery_; }
  const Recovery& recovery() const { return recovery_; }
  /// For logs of its servers and commands.
  base::fs::path directory() const { return directory_; }
  void save() const;

 private:
  RecoveryJournal(base::Fd lock, base::fs::path directory, Recovery recovery)
      : lock_(std::move(lock)), directory_(std::move(directory)), recovery_(std::move(recovery)) {}
  base::Fd lock_;
  base::fs::path directory_;
  Recovery recovery_;
};

/// All of a cluster, the oldest first; without locks, for looking.
std::vector<Recovery> read_recoveries(const base::fs::path& state, const std::string& cluster);

}  // namespace holdfast::operations
