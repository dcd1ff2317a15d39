#include "operations/catalog.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "operations/suspicion.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

postgres::Lsn lsn_member(const json& document, const char* name) {
  const auto lsn = postgres::parse_lsn(document.at(name).get<std::string>());
  if (!lsn) base::fail(Code::corrupt, "\"{}\" is not an LSN", name);
  return *lsn;
}

void check_plausible(const BackupInfo& backup) {
  const auto refuse = [&](std::string_view why) {
    base::fail(Code::corrupt, "backup {} cannot be: {}", backup.id.text, why);
  };
  if (!backup.start) refuse("it starts nowhere");
  if (backup.stop < backup.start) refuse("it stops before it starts");
  if (backup.stopped < backup.started) refuse("it ended before it began");
  if (backup.timeline.value == 0) refuse("it is on no timeline");
  if (!postgres::is_valid(backup.segment_size)) refuse("its WAL segments have an impossible size");
  if (backup.files == 0) refuse("it holds no files");
}

}  // namespace

json to_json(const BackupInfo& backup) {
  check_plausible(backup);
  json damaged = json::array();
  for (const DamagedFile& file : backup.damaged) {
    damaged.push_back({{"path", file.path}, {"pages", file.pages}, {"first_pages", file.first}});
  }
  json document = {{"id", backup.id.text},
                   {"cluster", backup.place.cluster},
                   {"system_id", backup.place.system_id},
                   {"started", base::to_iso(backup.started)},
                   {"stopped", base::to_iso(backup.stopped)},
                   {"start_lsn", postgres::to_string(backup.start)},
                   {"stop_lsn", postgres::to_string(backup.stop)},
                   {"timeline", backup.timeline.value},
                   {"wal_segment_bytes", backup.segment_size.bytes},
                   {"server_version", backup.server_version},
                   {"time_zone", backup.time_zone},
                   {"checksums", backup.checksums},
                   {"catalog_version", backup.catalog_version},
                   {"hints_logged", backup.hints_logged},
                   {"compared", backup.compared},
                   {"compared_with", backup.compared_with},
                   {"files", backup.files},
                   {"bytes", backup.bytes},
                   {"stored_bytes", backup.stored_bytes},
                   {"state", backup.is_damaged() ? "damaged" : "good"},
                   {"damaged_files", damaged},
                   {"made_by", "holdfast " HOLDFAST_VERSION}};
  if (backup.changes_checked) document["changes_checked"] = true;  // older ones do not have it
  return document;
}

BackupInfo backup_info(const json& document, const repository::ClusterPlace& place) {
  BackupInfo backup;
  try {
    backup.id = {document.at("id").get<std::string>()};
    backup.place = place;
    backup.started = base::from_iso(document.at("started").get<std::string>());
    backup.stopped = base::from_iso(document.at("stopped").get<std::string>());
    backup.start = lsn_member(document, "start_lsn");
    backup.stop = lsn_member(document, "stop_lsn");
    backup.timeline = {document.at("timeline").get<std::uint32_t>()};
    backup.segment_size = {document.at("wal_segment_bytes").get<std::uint64_t>()};
    backup.server_version = document.at("server_version").get<int>();
    backup.time_zone = document.at("time_zone").get<std::string>();
    backup.checksums = document.at("checksums").get<bool>();
    backup.catalog_version = document.at("catalog_version").get<std::uint32_t>();
    backup.hints_logged = document.at("hints_logged").get<bool>();
    backup.compared = document.at("compared").get<std::string>();
    backup.compared_with = document.at("compared_with").get<std::string>();
    backup.changes_checked = document.value("changes_checked", false);
    backup.files = document.at("files").get<std::uint64_t>();
    backup.bytes = document.at("bytes").get<std::uint64_t>();
    backup.stored_bytes = document.at("stored_bytes").get<std::uint64_t>();
    for (const json& file : document.at("damaged_files")) {
      backup.damaged.push_back({file.at("path").get<std::string>(),
                                file.at("pages").get<std::uint64_t>(),
                                file.at("first_pages").get<std::vector<std::uint64_t>>()});
    }
    // A document under another cluster's name was copied there (TRAPS SR4).
    if (document.at("cluster") != place.cluster || document.at("system_id") != place.system_id) {
      base::fail(Code::foreign, "backup {} belongs to cluster {} with system {}", backup.id.text,
                 document.at("cluster").dump(), document.at("system_id").dump());
    }
  } catch (const json::exception& error) {
    base::fail(Code::corrupt, "backup.json is not as it should be: {}", error.what());
  }
  check_plausible(backup);
  return backup;
}

namespace {

/// `init` makes the key before the repository. Without one there never was a repository; otherwise
/// one that is not there is away, and `init` must not make another in its place.
bool was_never_made(const RepositoryConfiguration& configuration) {
  return !configuration.key.key_file.empty() && !base::status_of(configuration.key.key_file);
}

}  // namespace

repository::Repository open_repository(const RepositoryConfiguration& configuration) {
  const auto open = [&] {
    try {
      return repository::Repository::open(store::open_store(configuration.url), configuration.key);
    } catch (const Error& error) {
      if (error.code() != Code::not_found || !was_never_made(configuration)) throw;
      throw Error(Code::not_found, error.message(),
                  "create one with `holdfast init`, or correct the url in holdfast.toml");
    }
  };
  repository::Repository opened = open();
  if (opened.encrypted() || !configuration.encrypted) return opened;
  throw Error(
      Code::key,
      fmt::format("cannot use the repository at {}: it is not encrypted, and the configuration "
                  "does not say that it may be so",
                  configuration.url),
      "set encryption = \"none\" in its section if that is right");
}

Site open_site(const Configuration& configuration, const std::string& cluster) {
  return {configuration, configuration.cluster(cluster),
          open_repository(configuration.repository())};
}

namespace {

/// A system whose registration is lost must not look like a cluster without backups (TRAPS VE11).
void refuse_unregistered(const repository::Repository& repository, const std::string& cluster) {
  for (const std::string& name : repository.store().names("clusters/" + cluster)) {
    const repository::ClusterPlace place{cluster, name};
    if (repository.is_registered(place)) continue;
    if (repository.store().names(place.directory() + "/backups").empty()) continue;
    throw Error(Code::corrupt,
                fmt::format("cannot use the backups of cluster {}: \"{}/system.json\" is missing",
                            cluster, place.directory()),
                "`holdfast init --new-system` registers a running server's system again");
  }
}

}  // namespace

Catalog read_catalog(const Site& site) {
  refuse_unregistered(site.repository, site.cluster.name);
  Catalog catalog;
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    const repository::Backups backups(site.repository, {site.cluster.name, system});
    for (const repository::BackupId& id : backups.all()) {
      try {
        const auto document = backups.read(id);
        if (!document) continue;
        BackupInfo backup = backup_info(*document, backups.place());
        backup.suspicion = find_suspicion(backups, backup);
        catalog.backups.push_back(std::move(backup));
      } catch (const Error& error) {
        const bool about_the_backup =
            error.code() == Code::corrupt || error.code() == Code::foreign;
        if (!about_the_backup) throw;
        catalog.unreadable.push_back({id, error.message()});
      }
    }
  }
  std::stable_sort(catalog.backups.begin(), catalog.backups.end(),
                   [](const BackupInfo& a, const BackupInfo& b) { return a.stopped < b.stopped; });
  return catalog;
}

}  // namespace holdfast::operations
