#pragma once

// What `expire` and `list` must know of a cluster before anything is decided: its backups with all
// that they refer to, those that went, pins, WAL. Reads everything, changes nothing.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "operations/expire.h"
#include "operations/wal_coverage.h"

namespace holdfast::operations {

/// What expired.json is signed as.
constexpr std::string_view expired_purpose = "expired.json";

/// A backup whose backup.json was removed by `expire`.
struct GoneBackup {
  repository::BackupId id;
  std::optional<BackupInfo> info;  ///< nullopt: its expired.json cannot be read
  base::Timestamp gone;            ///< by the store's clock
  bool has_map = false;
};

/// A map without backup.json and expired.json: its backup was killed.
struct AbandonedBackup {
  repository::BackupId id;
  base::Timestamp written;
};

struct WalObject {
  store::ObjectInfo object;
  postgres::Timeline timeline;
  std::optional<postgres::Segment> segment;  ///< if the size of segments is known
  bool is_segment = false;                   ///< a whole one
  bool is_slice = false;
};

/// Packs and map shards. Of a hundred terabytes there are millions, so only their ids are kept.
class ObjectSet {
 public:
  void add(const ObjectSet& other);
  void add(const repository::PackId& pack) { packs_.push_back(pack); }
  void add(const repository::ShardId& shard) { shards_.push_back(shard); }
  /// To be called after the last add() and before contains().
  void sort();
  /// `name` is that of an object below the system's directory: "packs/ID" or "maps/ID".
  bool contains(std::string_view name) const;

 private:
  std::vector<repository::PackId> packs_;
  std::vector<repository::ShardId> shards_;
};

/// One system of the cluster.
struct SystemSurvey {
  repository::ClusterPlace place;
  std::vector<Candidate> backups;
  std::vector<GoneBackup> gone;
  std::vector<AbandonedBackup> abandoned;
  std::vector<repository::Pin> pins;
  std::set<repository::BackupId> marked;  ///< committed, but there is an expired.json
  /// The shards and packs that each backup refers to, also those that are gone.
  std::map<repository::BackupId, ObjectSet> references;
  std::vector<WalObject> wal;           ///< without history files, which always stay
  std::optional<WalCoverage> coverage;  ///< if the size of its segments is known
  std::vector<TimelineUse> timelines;
  std::vector<store::ObjectInfo> objects;  ///< packs and shards
};

struct Survey {
  std::vector<SystemSurvey> systems;  ///< the one that was written to last is last
  std::vector<UnreadableBackup> unreadable;
  /// What cannot be read; no pack, shard or WAL may go.
  std::vector<std::string> problems;

  RetentionInput retention(const KeepRules& rules, base::Timestamp now) const;
};

/// Reads all but packs, shards and maps.
Survey survey(const Site& site);

/// Lists packs and shards, and reads which of them the backups refer to; of those that are gone
/// only if `matters`. One whose map cannot be read must stay, and is a problem.
void read_references(const Site& site, Survey& survey,
                     const std::function<bool(const SystemSurvey&, const GoneBackup&)>& matters);

}  // namespace holdfast::operations
