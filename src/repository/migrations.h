#pragma once

// The journal of migrations: what was about to be run, the way back that was proven before, and how
// it ended.
//
// It is in the repository, not beside the drills' records: there it survives the loss of the host,
// as the way back that it describes does, and whoever restores has it. migrations/ID is written
// before the command is started, migrations/ID-ended after it; neither ever changes. So a migration
// with a beginning and without an end is running, or was cut off, or its end could not be written.
// One without a beginning was never started.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

struct Migration {
  std::string id;        ///< "2026-11-23-150137Z-1a2b"
  bool readable = true;  ///< if not, nothing else is known
  base::Timestamp begun;
  BackupId backup;
  std::string restore_point;  ///< its name
  std::string lsn;            ///< where it is
  std::uint32_t timeline = 0;
  std::string commit;   ///< what was deployed; empty: not known
  std::string program;  ///< without its arguments: these may hold secrets
  std::string by;       ///< user and host
  struct End {
    base::Timestamp at;
    int status = 0;
  };
  std::optional<End> end;
};

/// The oldest first, those that cannot be read before all. By time: an id is only as fine as a
/// second, and several migrations can begin within one.
void sort_by_beginning(std::vector<Migration>& migrations);

class Migrations {
 public:
  Migrations(const Repository& repository, ClusterPlace place);

  /// Durable on return, as is `end`.
  void begin(const Migration& migration) const;
  void end(const Migration& migration, const Migration::End& end) const;
  /// All, the oldest first. One that cannot be read is there all the same.
  std::vector<Migration> all() const;

 private:
  std::string name_of(const std::string& id) const;
  /// What both documents of a migration say of whose and which it is.
  nlohmann::json identity(const std::string& id) const;
  Migration read_migration(const std::string& id) const;

  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
