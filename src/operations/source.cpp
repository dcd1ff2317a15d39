#include "operations/source.h"

#include "base/error.h"
#include "postgres/administration.h"
#include "postgres/data_directory.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

constexpr int oldest_major = 13;
constexpr int newest_major = 18;

void check_version(postgres::Session& session) {
  const int major = session.major_version();
  if (major >= oldest_major && major <= newest_major) return;
  base::fail(Code::unsupported, "cannot back up PostgreSQL {}: versions {} to {} are known", major,
             oldest_major, newest_major);
}

/// Configuration files by absolute path, without those inside the data directory.
std::vector<repository::Attachment> outside_configuration(const ClusterConfiguration& cluster,
                                                          postgres::Session& session,
                                                          std::vector<std::string>& warnings) {
  std::vector<repository::Attachment> files;
  const bool agentless = cluster.data_directory.empty();
  std::string inside = cluster.data_directory.string() + "/";
  if (agentless) {
    try {
      inside = session.setting("data_directory").value_or("") + "/";
    } catch (const Error& error) {
      if (error.code() != Code::permission) throw;
      warnings.push_back(
          "could not see where the server keeps its configuration; what is outside of its data "
          "directory is not in the backup: GRANT pg_read_all_settings, pg_read_server_files");
      return files;
    }
  }
  const auto read = [&](const std::string& path) {
    if (!agentless) return base::read_file(path);
    auto content = postgres::read_server_file(session, path);
    if (!content) {
      warnings.push_back(
          fmt::format("could not read \"{}\" through the server, so the backup lacks it: GRANT "
                      "pg_read_server_files, or keep a copy of it",
                      path));
    }
    return content;
  };
  for (const std::string& each : postgres::configuration_files(session)) {
    const std::string path = base::fs::path(each).lexically_normal().string();
    if (path.starts_with(inside)) continue;
    if (auto content = read(path)) files.push_back({"config" + path, *std::move(content)});
  }
  if (files.empty()) return files;
  for (const char* name : {"config_file", "hba_file", "ident_file"}) {
    const std::string path = session.setting(name).value_or("");
    if (!path.starts_with(inside)) files.push_back({name, base::copy(base::view(path))});
  }
  return files;
}

}  // namespace

postgres::ControlFile matching_control_file(const ClusterConfiguration& cluster,
                                            postgres::Session& session) {
  if (cluster.data_directory.empty()) return postgres::control_data(session);
  postgres::major_version(cluster.data_directory);  // says clearly if this is no data directory
  const postgres::ControlFile control = postgres::read_control_file(cluster.data_directory).control;
  const postgres::SystemId server = session.system_id();
  if (control.system_id != server) {
    throw Error(Code::foreign,
                fmt::format("cannot use \"{}\" with this connection: it is the data directory of "
                            "system {}, but the server is system {}",
                            cluster.data_directory.string(), postgres::to_string(control.system_id),
                            postgres::to_string(server)),
                "data_directory and connection in holdfast.toml must mean the same server");
  }
  return control;
}

Source examine_source(const Site& site, postgres::Session& session) {
  check_version(session);
  Source source;
  source.control = matching_control_file(site.cluster, session);
  source.place = {site.cluster.name, postgres::to_string(source.control.system_id)};
  if (!site.repository.is_registered(source.place)) {
    throw Error(
        Code::foreign,
        fmt::format("cannot back up this server as cluster {}: the repository does not know "
                    "its system {}",
                    site.cluster.name, source.place.system_id),
        "if it is this cluster after pg_upgrade or initdb, run `holdfast init --new-system`; "
        "else give it a cluster of its own");
  }
  source.standby = session.in_recovery();
  // What runs without full page writes cannot be mended from torn pages.
  // (Of a standby's primary the server itself knows.)
  if (!source.standby && session.setting("full_page_writes") == "off") {
    throw Error(Code::refused, "cannot back up this server safely: full_page_writes is off",
                "set full_page_writes = on");
  }
  source.version_directory =
      fmt::format("PG_{}_{}", session.major_version(), source.control.catalog_version);
  source.configuration_files = outside_configuration(site.cluster, session, source.warnings);
  return source;
}

}  // namespace holdfast::operations
