#pragma once

// Which PostgreSQL system a command is about, where a cluster's name stands for several.
//
// More than one is registered after pg_upgrade, after initdb, or after an upgrade that was tried
// and taken back. The one that is meant is named (--system), or it is the one of the data directory
// or server that the configuration names, or it is the only one of which there is anything. Nothing
// else decides; the order in which they were registered above all does not.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "operations/catalog.h"

namespace holdfast::operations {

struct KnownSystem {
  repository::ClusterPlace place;
  bool in_use = false;     ///< the data directory or server of the configuration is of it
  int server_version = 0;  ///< of its newest backup; 0: it has none
  std::size_t backups = 0;
  std::optional<base::Timestamp> last_backup;  ///< the stop of its newest good one
  std::optional<base::Timestamp> last_wal;     ///< when the newest was stored
};

/// The system of the configured data directory, or of the server if that is not to be read.
/// nullopt: neither can be asked.
std::optional<std::string> system_in_use(const ClusterConfiguration& cluster);

/// The same, if there are several and it is one of them.
std::optional<std::string> known_in_use(const Site& site);

/// All that are registered; the one that was written to last is last.
std::vector<KnownSystem> known_systems(const Site& site, const Catalog& catalog);
/// "7576... (PostgreSQL 17, in use, 3 backups, the last of ..., WAL until ...)": for people.
std::string to_string(const KnownSystem& system);
/// All of them but `but`, between semicolons; empty if there are none.
std::string list_systems(const Site& site, const std::string& but = {});

/// The one that is meant. `named`: by --system, or empty. Throws Error(not_found) if the repository
/// knows no such one, or none at all, and Error(usage) that lists them where it cannot be told.
std::string choose_system(const Site& site, const std::string& named);
/// Says that it cannot be told; `why` reads on from "cannot tell which system is meant: ".
[[noreturn]] void ask_for_system(const Site& site, const std::string& why);
/// Throws Error(not_found) unless the repository knows it.
void check_known(const Site& site, const std::string& system);

}  // namespace holdfast::operations
