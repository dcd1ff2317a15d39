#include "operations/wal_push.h"

#include "base/error.h"
#include "operations/put_wal.h"
#include "postgres/timeline_history.h"
#include "postgres/wal_segment.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::WalFileName;

WalFileName name_of(const base::fs::path& path) {
  const auto name = postgres::parse_wal_file_name(path.filename().string());
  if (!name) {
    throw Error(Code::usage,
                fmt::format("cannot push \"{}\": this is no name of a WAL file", path.string()),
                "archive_command should end in: wal push %p");
  }
  return *name;
}

bool is_segment(const WalFileName& name) {
  return name.kind == WalFileName::Kind::segment || name.kind == WalFileName::Kind::partial;
}

/// The system that a file without a header of its own belongs to: that of the data directory it is
/// in.
postgres::SystemId system_beside(const Site& site, const base::fs::path& path) {
  const base::fs::path wal_directory = base::fs::absolute(path).parent_path();
  if (wal_directory.filename() == "pg_wal" &&
      base::status_of(wal_directory.parent_path() / "global" / "pg_control")) {
    return postgres::read_control_file(wal_directory.parent_path()).control.system_id;
  }
  if (site.cluster.data_directory.empty()) {
    throw Error(
        Code::configuration,
        fmt::format("cannot push \"{}\": it does not say which system it is of, and cluster "
                    "{} has no data_directory",
                    path.string(), site.cluster.name),
        "push it from the pg_wal of its server");
  }
  return postgres::read_control_file(site.cluster.data_directory).control.system_id;
}

postgres::SystemId system_of(const Site& site, const base::fs::path& path, const WalFileName& name,
                             base::View bytes) {
  if (!is_segment(name)) return system_beside(site, path);
  return postgres::parse_segment_header(bytes).system_id;
}

void check_content(const WalFileName& name, base::View bytes) {
  if (name.kind == WalFileName::Kind::history) {
    const postgres::TimelineHistory parsed(name.timeline, base::text(bytes));
  } else if (!base::text(bytes).starts_with("START WAL LOCATION")) {
    base::fail(Code::corrupt, "this is no backup history file");
  }
}

void put_histories(const repository::WalArchive& archive, postgres::SystemId system,
                   const base::fs::path& path, postgres::Timeline timeline);

PushOutcome put(const repository::WalArchive& archive, postgres::SystemId system,
                const base::fs::path& path, const WalFileName& name, base::View bytes,
                unsigned workers) {
  const std::string file = path.filename().string();
  std::optional<CheckedSegment> segment;
  try {
    if (is_segment(name)) {
      segment.emplace(file, bytes, system);
    } else {
      check_content(name, bytes);
    }
  } catch (const Error& error) {
    throw error.with_context(fmt::format("cannot push \"{}\"", path.string()));
  }
  if (name.kind == WalFileName::Kind::segment) put_histories(archive, system, path, name.timeline);
  const auto result = segment ? segment->put(archive, workers) : archive.put(file, bytes, workers);
  return {file, result == repository::WalArchive::Put::identical, bytes.size()};
}

/// A server that was promoted while archiving was off never offers the history of its timeline,
/// without which WAL of that timeline cannot be followed. So what stands beside the first segment
/// goes first, and so do the histories of the timelines that it came from.
void put_histories(const repository::WalArchive& archive, postgres::SystemId system,
                   const base::fs::path& path, postgres::Timeline timeline) {
  const std::string file = postgres::history_file_name(timeline);
  if (timeline.value == 1 || archive.has(file)) return;
  const base::fs::path beside = path.parent_path() / file;
  const auto bytes = base::read_file(beside);
  if (!bytes) return;
  const postgres::TimelineHistory history(timeline, base::text(*bytes));
  for (const postgres::TimelineHistory::Switch& each : history.switches()) {
    put_histories(archive, system, path, each.from);
  }
  put(archive, system, beside, name_of(beside), *bytes, 1);
}

}  // namespace

PushOutcome push_wal(const Site& site, const base::fs::path& path, unsigned workers) {
  const WalFileName name = name_of(path);
  // PostgreSQL does not touch a segment while it is being archived.
  const base::MappedFile file(path);
  const base::View bytes = file.bytes();
  postgres::SystemId system;
  try {
    system = system_of(site, path, name, bytes);
  } catch (const Error& error) {
    throw error.with_context(fmt::format("cannot push \"{}\"", path.string()));
  }
  const repository::ClusterPlace place{site.cluster.name, postgres::to_string(system)};
  if (!site.repository.is_registered(place)) {
    throw Error(
        Code::foreign,
        fmt::format("cannot push \"{}\": it belongs to system {}, which is not known as "
                    "cluster {} here",
                    path.string(), place.system_id, place.cluster),
        "if this is the cluster after pg_upgrade or initdb, run `holdfast init --new-system`; "
        "else give the other server its own cluster in its own configuration");
  }
  const repository::WalArchive archive(site.repository, place);
  return put(archive, system, path, name, bytes, workers);
}

PushOutcome push_wal_of(const repository::WalArchive& archive, postgres::SystemId system,
                        const base::fs::path& path, base::View bytes, unsigned workers) {
  return put(archive, system, path, name_of(path), bytes, workers);
}

}  // namespace holdfast::operations
