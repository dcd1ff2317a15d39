#include "operations/systems.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/control_file.h"
#include "postgres/session.h"
#include "repository/activity.h"

namespace holdfast::operations {

using base::Code;
using base::Error;

std::optional<std::string> system_in_use(const ClusterConfiguration& cluster) {
  if (!cluster.data_directory.empty()) {
    try {
      return postgres::to_string(
          postgres::read_control_file(cluster.data_directory).control.system_id);
    } catch (const Error&) {  // it is lost, or another user's
    }
  }
  try {
    return postgres::to_string(postgres::Session(cluster.connection).system_id());
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<std::string> known_in_use(const Site& site) {
  const auto names = site.repository.systems(site.cluster.name);
  if (names.size() < 2) return std::nullopt;
  auto used = system_in_use(site.cluster);
  if (!used || std::ranges::find(names, *used) == names.end()) return std::nullopt;
  return used;
}

std::vector<KnownSystem> known_systems(const Site& site, const Catalog& catalog) {
  const auto names = site.repository.systems(site.cluster.name);
  if (names.empty()) return {};
  const auto used =
      names.size() > 1 ? system_in_use(site.cluster) : std::optional<std::string>(names.front());
  std::vector<KnownSystem> found;
  for (const std::string& name : names) {
    KnownSystem system;
    system.place = {site.cluster.name, name};
    system.in_use = used == name;
    for (const BackupInfo& backup : catalog.backups) {  // by stop time
      if (backup.place.system_id != name) continue;
      ++system.backups;
      system.server_version = backup.server_version;
      if (!backup.is_damaged()) system.last_backup = backup.stopped;
    }
    system.last_wal = repository::activity_of(site.repository.store(), system.place).wal;
    found.push_back(std::move(system));
  }
  return found;
}

std::string to_string(const KnownSystem& system) {
  const auto moment = [](base::Timestamp time) {
    return base::to_string(std::chrono::floor<std::chrono::seconds>(time));
  };
  std::string text = system.place.system_id + " (";
  if (system.server_version != 0) {
    text += fmt::format("PostgreSQL {}, ", system.server_version / 10000);
  }
  if (system.in_use) text += "in use, ";
  text += system.backups == 1 ? "1 backup" : fmt::format("{} backups", system.backups);
  if (system.last_backup) {
    text += fmt::format(", the last good one of {}", moment(*system.last_backup));
  }
  text += system.last_wal ? fmt::format(", WAL until {})", moment(*system.last_wal)) : ", no WAL)";
  return text;
}

std::string list_systems(const Site& site, const std::string& but) {
  std::string text;
  try {
    for (const KnownSystem& each : known_systems(site, read_catalog(site))) {
      if (each.place.system_id != but) text += (text.empty() ? "" : "; ") + to_string(each);
    }
    return text;
  } catch (const Error&) {  // their numbers are known all the same
    text.clear();
  }
  for (const std::string& each : site.repository.systems(site.cluster.name)) {
    if (each != but) text += (text.empty() ? "" : "; ") + each;
  }
  return text;
}

void ask_for_system(const Site& site, const std::string& why) {
  throw Error(Code::usage, "cannot tell which system is meant: " + why,
              "name it with --system ID: " + list_systems(site));
}

void check_known(const Site& site, const std::string& system) {
  if (site.repository.is_registered({site.cluster.name, system})) return;
  const auto names = site.repository.systems(site.cluster.name);
  throw Error(
      Code::not_found,
      fmt::format("cannot find system \"{}\": the repository does not know it as cluster {}",
                  system, site.cluster.name),
      names.empty() ? "run `holdfast init`" : "it has: " + list_systems(site));
}

std::string choose_system(const Site& site, const std::string& named) {
  if (!named.empty()) {
    check_known(site, named);
    return named;
  }
  const auto names = site.repository.systems(site.cluster.name);
  if (names.empty()) {
    throw Error(Code::not_found,
                fmt::format("the repository knows no system of cluster {}", site.cluster.name),
                "run `holdfast init`");
  }
  if (names.size() == 1) return names.front();
  const auto used = system_in_use(site.cluster);
  if (used && std::ranges::find(names, *used) != names.end()) return *used;
  std::vector<std::string> written;
  for (const std::string& each : names) {
    const repository::ClusterPlace place{site.cluster.name, each};
    if (repository::activity_of(site.repository.store(), place).any()) written.push_back(each);
  }
  if (written.size() == 1) return written.front();
  ask_for_system(site,
                 fmt::format("the repository has {} under the name {}, and {}", names.size(),
                             site.cluster.name,
                             used ? fmt::format("the server is of another one, {}", *used)
                                  : "neither the data directory nor the server can be asked"));
}

}  // namespace holdfast::operations
