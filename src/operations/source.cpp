#include "operations/source.h"

#include "base/error.h"
#include "operations/source_configuration.h"
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
  SourceConfiguration configuration = read_source_configuration(site.cluster, session);
  source.configuration_files = std::move(configuration.attachments);
  source.warnings = std::move(configuration.lacks);
  return source;
}

}  // namespace holdfast::operations
