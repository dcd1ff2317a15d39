#include "operations/expire_survey.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "operations/recovery_window.h"
#include "repository/pack.h"
#include "repository/signed_document.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using repository::BackupId;
using repository::PackId;

bool is_damage(const Error& error) {
  return error.code() == Code::corrupt || error.code() == Code::foreign;
}

class Surveyor {
 public:
  Surveyor(const Site& site, Survey& survey, repository::ClusterPlace place)
      : repository_(site.repository),
        store_(site.repository.store()),
        survey_(survey),
        backups_(site.repository, place),
        archive_(site.repository, place) {
    system_.place = std::move(place);
  }

  SystemSurvey run(const Catalog& catalog) {
    for (const BackupInfo& backup : catalog.backups) {
      if (backup.place.system_id == system_.place.system_id) {
        system_.backups.push_back({backup, true, {}});
      }
    }
    read_others();
    system_.pins = repository::Pins(repository_, system_.place).all();
    read_wal();
    return std::move(system_);
  }

 private:
  /// Marks and maps, with or without a backup.json.
  void read_others() {
    for (const BackupId& id : backups_.all()) {
      try {
        read_other(id);
      } catch (const Error& error) {
        if (!is_damage(error)) throw;
        problem(fmt::format("backup {}: {}", id.text, error.message()));
      }
    }
  }

  void read_other(const BackupId& id) {
    const bool committed = store_.stat(backups_.object_name(id, "backup.json")).has_value();
    const auto mark = store_.stat(backups_.object_name(id, "expired.json"));
    if (committed) {
      if (mark) system_.marked.insert(id);
      return;
    }
    const auto map = store_.stat(backups_.object_name(id, "map"));
    if (mark) {
      system_.gone.push_back({id, read_mark(id), mark->written, map.has_value()});
    } else if (map) {
      system_.abandoned.push_back({id, map->written});
    }
  }

  std::optional<BackupInfo> read_mark(const BackupId& id) {
    try {
      const auto bytes = store_.get(backups_.object_name(id, "expired.json"));
      if (!bytes) return std::nullopt;
      const auto document =
          repository::read_signed(repository_, expired_purpose, base::text(*bytes));
      if (!document || !document->contains("backup")) return std::nullopt;
      BackupInfo info = backup_info(document->at("backup"), system_.place);
      if (info.id == id) return info;
    } catch (const Error& error) {
      if (!is_damage(error)) throw;
    }
    return std::nullopt;
  }

  void problem(std::string text) { survey_.problems.push_back(std::move(text)); }

  /// What is known of the size of segments; nullopt if backups do not agree or there are none.
  std::optional<postgres::SegmentSize> segment_size() {
    std::optional<postgres::SegmentSize> size;
    const auto agree = [&](const BackupInfo& backup) {
      if (size && *size != backup.segment_size) return false;
      size = backup.segment_size;
      return true;
    };
    const bool all = std::ranges::all_of(system_.backups, agree, &Candidate::backup) &&
                     std::ranges::all_of(system_.gone, [&](const GoneBackup& each) {
                       return !each.info || agree(*each.info);
                     });
    if (all) return size;
    problem(fmt::format("the backups of system {} do not agree on the size of WAL segments",
                        system_.place.system_id));
    return std::nullopt;
  }

  void read_wal() {
    const auto size = segment_size();
    const std::string directory = system_.place.directory() + "/wal/";
    std::map<postgres::Timeline, base::Timestamp> written;
    for (auto& object : store_.list(directory.substr(0, directory.size() - 1))) {
      auto found = wal_object(std::move(object), directory.size(), size);
      if (!found) continue;
      auto& last = written[found->timeline];
      last = std::max(last, found->object.written);
      system_.wal.push_back(*std::move(found));
    }
    if (!size) return;
    system_.coverage.emplace(archive_, *size);
    for (const auto& [timeline, last] : written) {
      if (const auto history = system_.coverage->history(timeline)) {
        system_.timelines.push_back({system_.place.system_id, *history, last, false});
      }
    }
    judge_backups();
  }

  /// "TTTTTTTT/FILE" or "TTTTTTTT/SEGMENT.d/LSN"; nullopt for anything else.
  static std::optional<WalObject> wal_object(store::ObjectInfo object, std::size_t skip,
                                             std::optional<postgres::SegmentSize> size) {
    const std::string_view path = std::string_view(object.name).substr(skip);
    if (path.size() < 10 || path[8] != '/') return std::nullopt;
    std::string_view file = path.substr(9);
    const std::size_t part = file.find('/');
    const bool slice = part != std::string_view::npos;
    if (slice && (part < 2 || file.substr(part - 2, 2) != ".d")) return std::nullopt;
    if (slice) file = file.substr(0, part - 2);
    const auto name = postgres::parse_wal_file_name(file);
    if (!name || name->kind == postgres::WalFileName::Kind::history ||
        file.substr(0, 8) != path.substr(0, 8)) {
      return std::nullopt;
    }
    const bool whole = !slice && name->kind == postgres::WalFileName::Kind::segment;
    if (slice && name->kind != postgres::WalFileName::Kind::segment) return std::nullopt;
    const auto segment = size ? name->segment(*size) : std::optional<postgres::Segment>();
    return WalObject{std::move(object), name->timeline, segment, whole, slice};
  }

  /// Can they be restored, by what their WAL says? Without all histories nobody knows what a
  /// timeline needs: then everything stays.
  void judge_backups() {
    const SystemView view{
        system_.place, {}, archive_, *system_.coverage, ExpiredWal(repository_, system_.place)};
    auto missing = system_.coverage->missing_histories();
    for (Candidate& each : system_.backups) {
      const auto history = system_.coverage->history(each.backup.timeline);
      if (!history) missing.push_back(each.backup.timeline);
      each.usable = history && view.can_use(each.backup, *history);
    }
    if (missing.empty()) return;
    const std::string name = postgres::history_file_name(missing.front());
    problem(
        fmt::format("{} is missing or cannot be read: what its timeline needs is not known; "
                    "push it again from a server's pg_wal",
                    name));
    for (Candidate& each : system_.backups) each.hold = name + " is missing";
  }

  const repository::Repository& repository_;
  store::ObjectStore& store_;
  Survey& survey_;
  repository::Backups backups_;
  repository::WalArchive archive_;
  SystemSurvey system_;
};

/// `known` has the packs of shards that were read before.
ObjectSet referenced_objects(const repository::Backups& backups, const BackupId& id,
                             std::map<repository::ShardId, std::vector<PackId>>& known) {
  ObjectSet objects;
  base::Decompressor decompressor;
  for (const repository::ShardReference& shard : backups.read_map(id).shards) {
    auto found = known.find(shard.id);
    if (found == known.end()) {
      std::vector<PackId> packs;
      for (const auto& use : backups.read_shard_packs(shard.id, decompressor)) {
        packs.push_back(use.pack);
      }
      found = known.emplace(shard.id, std::move(packs)).first;
    }
    objects.add(shard.id);
    for (const PackId& pack : found->second) objects.add(pack);
  }
  objects.sort();
  return objects;
}

template <typename Id>
void sort_unique(std::vector<Id>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  ids.shrink_to_fit();
}

}  // namespace

void ObjectSet::add(const ObjectSet& other) {
  packs_.insert(packs_.end(), other.packs_.begin(), other.packs_.end());
  shards_.insert(shards_.end(), other.shards_.begin(), other.shards_.end());
}

void ObjectSet::sort() {
  sort_unique(packs_);
  sort_unique(shards_);
}

bool ObjectSet::contains(std::string_view name) const {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return false;
  repository::ObjectId id;
  try {
    id = repository::parse_object_id(name.substr(slash + 1));
  } catch (const Error&) {
    return false;  // nothing can refer to it
  }
  return name.starts_with("packs/") ? std::ranges::binary_search(packs_, PackId{id})
                                    : std::ranges::binary_search(shards_, repository::ShardId{id});
}

RetentionInput Survey::retention(const KeepRules& rules, base::Timestamp now) const {
  RetentionInput input{{}, {}, {}, rules, now};
  for (const SystemSurvey& system : systems) {
    input.candidates.insert(input.candidates.end(), system.backups.begin(), system.backups.end());
    input.pins.insert(input.pins.end(), system.pins.begin(), system.pins.end());
    const auto newest = std::ranges::max_element(
        system.timelines, {}, [](const TimelineUse& each) { return each.history.timeline(); });
    for (const TimelineUse& timeline : system.timelines) {
      input.timelines.push_back(timeline);
      input.timelines.back().newest = !system.backups.empty() && &timeline == &*newest;
    }
  }
  return input;
}

Survey survey(const Site& site) {
  const Catalog catalog = read_catalog(site);
  Survey survey;
  survey.unreadable = catalog.unreadable;
  for (const UnreadableBackup& backup : catalog.unreadable) survey.problems.push_back(backup.why);
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    survey.systems.push_back(Surveyor(site, survey, {site.cluster.name, system}).run(catalog));
  }
  return survey;
}

void read_references(const Site& site, Survey& survey,
                     const std::function<bool(const SystemSurvey&, const GoneBackup&)>& matters) {
  for (SystemSurvey& system : survey.systems) {
    const repository::Backups backups(site.repository, system.place);
    for (const char* part : {"/packs", "/maps"}) {
      for (auto& object : site.repository.store().list(system.place.directory() + part)) {
        system.objects.push_back(std::move(object));
      }
    }
    std::map<repository::ShardId, std::vector<PackId>> known;
    const auto read = [&](const BackupId& id) {
      try {
        system.references[id] = referenced_objects(backups, id, known);
        return true;
      } catch (const Error& error) {
        if (!is_damage(error)) throw;
        survey.problems.push_back(fmt::format("backup {}: {}", id.text, error.message()));
        return false;
      }
    };
    for (Candidate& each : system.backups) {
      if (read(each.backup.id)) continue;
      each.usable = false;
      each.hold = "its map cannot be read";
    }
    for (const GoneBackup& each : system.gone) {
      if (matters(system, each)) read(each.id);
    }
  }
}

}  // namespace holdfast::operations
