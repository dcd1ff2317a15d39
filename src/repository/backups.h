#pragma once

// The backups of one cluster: writing one, and finding them again.
//
// A backup exists when its backup.json does (INV-1). That is a small JSON document that people can
// read; its last member is a keyed digest of all before it, so a changed byte is found. What the
// members mean is known further up (operations/catalog.h); here only "id" and "map" matter.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "repository/page_map.h"
#include "repository/repository.h"

namespace holdfast::repository {

class Backups {
 public:
  Backups(const Repository& repository, ClusterPlace place);

  const ClusterPlace& place() const { return place_; }

  /// Writes a shard; durable on return.
  ShardId write_shard(const Shard& shard, base::Compressor& compressor) const;
  Shard read_shard(const ShardId& id, base::Decompressor& decompressor) const;
  /// Only the packs that it refers to: one frame.
  std::vector<PackUse> read_shard_packs(const ShardId& id, base::Decompressor& decompressor) const;
  /// Writes a shard again under the id that it had (it was lost, and rebuilt from packs).
  void rewrite_shard(const ShardId& id, const Shard& shard) const;

  void write_map(const BackupId& id, const BackupMap& map) const;
  BackupMap read_map(const BackupId& id) const;

  /// The commit. The caller answers for INV-1: everything that the backup needs is durable.
  void commit(const BackupId& id, const nlohmann::json& document) const;

  /// Names of all that look like backups, committed or not, sorted.
  std::vector<BackupId> all() const;
  /// The document; nullopt if the backup was not committed; Error(corrupt) if it is not as written.
  std::optional<nlohmann::json> read(const BackupId& id) const;

  std::string object_name(const BackupId& id, std::string_view part) const;

 private:
  void put_shard(const ShardId& id, const Shard& shard, base::Compressor& compressor) const;
  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
