#include "repository/backups.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/signed_document.h"

namespace holdfast::repository {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::string_view mac_purpose = "backup.json";

std::string shard_name(const ShardId& id) {
  return "maps/" + to_string(id);
}

std::string map_name(const BackupId& id) {
  return "backups/" + id.text + "/map";
}

[[noreturn]] void missing(std::string_view what, const std::string& name) {
  throw base::Error(Code::corrupt, fmt::format("{} \"{}\" is missing", what, name),
                    "run `holdfast verify` to see which backups need it");
}

/// A map may be larger than a frame.
void add_all(ContainerWriter& container, base::View bytes, base::Compressor& compressor) {
  for (std::size_t at = 0; at < bytes.size(); at += max_frame_bytes) {
    container.add(bytes.subspan(at, std::min(max_frame_bytes, bytes.size() - at)), compressor);
  }
}

}  // namespace

Backups::Backups(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

void Backups::put_shard(const ShardId& id, const Shard& shard, base::Compressor& compressor) const {
  const EncodedShard encoded = encode(shard);
  // The container has an id of its own: a shard that is written again under its old name must not
  // be sealed under its old key and nonces (TRAPS EK9). That it is this shard is bound by its name.
  ContainerWriter container(repository_.store(), place_.directory(), shard_name(id),
                            Kind::map_shard, new_object_id(), repository_.protection());
  container.add(encoded.packs, compressor);
  add_all(container, encoded.files, compressor);
  if (!container.commit()) {
    base::fail(Code::conflict, "map shard {} exists already", to_string(id));
  }
}

ShardId Backups::write_shard(const Shard& shard, base::Compressor& compressor) const {
  const ShardId id{new_object_id()};
  put_shard(id, shard, compressor);
  return id;
}

void Backups::rewrite_shard(const ShardId& id, const Shard& shard) const {
  base::Compressor compressor(base::Compressor::Effort::dense);
  put_shard(id, shard, compressor);
}

Shard Backups::read_shard(const ShardId& id, base::Decompressor& decompressor) const {
  auto container = ContainerReader::open(repository_.store(), place_.directory(), shard_name(id),
                                         Kind::map_shard, repository_.protection());
  if (!container) missing("map shard", place_.directory() + "/" + shard_name(id));
  if (container->frames().empty()) {
    base::fail(Code::corrupt, "map shard {} is empty", to_string(id));
  }
  const base::Bytes all = container->read_all(decompressor);
  const std::size_t split = container->frames().front().raw;
  return decode_shard(base::View(all).first(split), base::View(all).subspan(split));
}

std::vector<PackUse> Backups::read_shard_packs(const ShardId& id,
                                               base::Decompressor& decompressor) const {
  auto container = ContainerReader::open(repository_.store(), place_.directory(), shard_name(id),
                                         Kind::map_shard, repository_.protection());
  if (!container) missing("map shard", place_.directory() + "/" + shard_name(id));
  if (container->frames().empty()) {
    base::fail(Code::corrupt, "map shard {} is empty", to_string(id));
  }
  base::Bytes packs;
  container->read(0, decompressor, packs);
  return decode_packs(packs);
}

std::string Backups::object_name(const BackupId& id, std::string_view part) const {
  return fmt::format("{}/backups/{}/{}", place_.directory(), id.text, part);
}

void Backups::write_map(const BackupId& id, const BackupMap& map) const {
  base::Compressor compressor(base::Compressor::Effort::dense);
  ContainerWriter container(repository_.store(), place_.directory(), map_name(id), Kind::backup_map,
                            new_object_id(), repository_.protection());
  const base::Bytes encoded = encode(map);
  decode_backup_map(encoded);  // what could not be read is not written
  add_all(container, encoded, compressor);
  if (!container.commit()) base::fail(Code::conflict, "backup {} exists already", id.text);
}

BackupMap Backups::read_map(const BackupId& id) const {
  auto container = ContainerReader::open(repository_.store(), place_.directory(), map_name(id),
                                         Kind::backup_map, repository_.protection());
  if (!container) missing("the map of backup", id.text);
  base::Decompressor decompressor;
  return decode_backup_map(container->read_all(decompressor));
}

void Backups::commit(const BackupId& id, const json& document) const {
  if (document.at("id") != id.text) {
    base::fail(Code::internal, "backup {} was to be committed as {}", document.at("id").dump(),
               id.text);
  }
  if (!repository_.store().put(object_name(id, "backup.json"),
                               base::view(sign(repository_, mac_purpose, document)))) {
    base::fail(Code::conflict, "backup {} exists already", id.text);
  }
}

std::vector<BackupId> Backups::all() const {
  std::vector<BackupId> found;
  for (std::string& name : repository_.store().names(place_.directory() + "/backups")) {
    if (is_backup_id(name)) found.push_back({std::move(name)});
  }
  return found;
}

std::optional<json> Backups::read(const BackupId& id) const {
  const auto bytes = repository_.store().get(object_name(id, "backup.json"));
  if (!bytes) return std::nullopt;
  auto document = read_signed(repository_, mac_purpose, base::text(*bytes));
  if (!document || !document->contains("id") || (*document)["id"] != id.text) {
    throw base::Error(Code::corrupt,
                      fmt::format("backup.json of backup {} is corrupt: its content does not match "
                                  "its check",
                                  id.text),
                      "the backup cannot be trusted; use another one");
  }
  return document;
}

}  // namespace holdfast::repository
