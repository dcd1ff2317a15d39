#pragma once

// The backups of a cluster, as operations think of them: what backup.json means.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "operations/configuration.h"
#include "postgres/control_file.h"
#include "postgres/lsn.h"
#include "repository/backups.h"
#include "repository/repository.h"

namespace holdfast::operations {

/// Pages of one file that failed their checksums and stood still.
struct DamagedFile {
  std::string path;
  std::uint64_t pages = 0;           ///< how many
  std::vector<std::uint64_t> first;  ///< the numbers of the first few
};

/// What went along with a backup of one [files.NAME] (files.h).
struct TakenFiles {
  std::string name;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  std::string note;  ///< why nothing was taken; empty: it was
};

struct BackupInfo {
  repository::BackupId id;
  repository::ClusterPlace place;
  base::Timestamp started;  ///< by the server's clock
  base::Timestamp stopped;  ///< the backup can be restored to this moment and later ones
  postgres::Lsn start;      ///< replay begins here
  postgres::Lsn stop;       ///< and is consistent from here on
  postgres::Timeline timeline;
  postgres::SegmentSize segment_size;
  int server_version = 0;  ///< 150020
  std::string time_zone;   ///< the server's TimeZone setting
  bool checksums = false;  ///< the cluster has them, so each page was checked
  /// What a later backup must know to tell whether pages can have changed without their LSN.
  std::uint32_t catalog_version = 0;
  bool hints_logged = false;  ///< data checksums or wal_log_hints were on
  /// How it found what had changed ("wal", "summaries", "pages", "content"; "nothing": it stored
  /// everything), and since which backup. For people: the backup is complete by itself.
  std::string compared = "nothing";
  std::string compared_with;
  /// What was left out as unchanged was checked against WAL and its summaries. Backups of before
  /// that check do not say so.
  bool changes_checked = false;
  /// Why committed rows may be missing in it though it is whole (suspicion.h); empty: nothing
  /// speaks against it. Set by read_catalog(); not in backup.json.
  std::string suspicion;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;         ///< of the cluster, without what is left out
  std::uint64_t stored_bytes = 0;  ///< that this backup added to the repository
  std::vector<DamagedFile> damaged;
  std::vector<TakenFiles> taken_files;  ///< of one just taken; not in backup.json

  bool is_damaged() const { return !damaged.empty(); }
  bool is_suspect() const { return !suspicion.empty(); }
};

nlohmann::json to_json(const BackupInfo& backup);
/// Throws Error(corrupt) if a member is missing or makes no sense (TRAPS RC11: stop before start,
/// ...).
BackupInfo backup_info(const nlohmann::json& document, const repository::ClusterPlace& place);

/// A repository and the cluster in it that a command is about.
struct Site {
  const Configuration& configuration;
  const ClusterConfiguration& cluster;
  repository::Repository repository;
};
/// Opens it, and refuses one that is not encrypted unless the configuration says so: plaintext must
/// never be stored because somebody put another repository in its place (TRAPS EK2).
repository::Repository open_repository(const RepositoryConfiguration& configuration);
Site open_site(const Configuration& configuration, const std::string& cluster);

struct UnreadableBackup {
  repository::BackupId id;
  std::string why;
};

/// All committed backups of a cluster, over all its systems (pg_upgrade makes a new one), in the
/// order of their stop times; and those whose backup.json cannot be trusted.
struct Catalog {
  std::vector<BackupInfo> backups;
  std::vector<UnreadableBackup> unreadable;
};
Catalog read_catalog(const Site& site);

}  // namespace holdfast::operations
