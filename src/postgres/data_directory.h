#pragma once

// What is in a data directory, and what of it belongs into a backup (basebackup.c).
//
// Paths are relative to the data directory, with "/" and no leading "./". A file in a tablespace
// has the path that it has through the link: "pg_tblspc/16390/PG_15_202209061/5/16400".

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"

namespace holdfast::postgres {

/// What the name says of a file below base/, global/ or pg_tblspc/.
struct RelationFile {
  enum class Fork { main, free_space_map, visibility_map, init };
  Fork fork = Fork::main;
  std::uint32_t tablespace = 0;  ///< 1663 for base/, 1664 for global/
  std::uint32_t database = 0;    ///< 0 for global/
  std::uint32_t segment = 0;     ///< 0 for "16384", 1 for "16384.1"
  std::uint32_t relation = 0;    ///< relfilenumber
  bool temporary = false;        ///< "t3_16384"
};
/// nullopt if `path` is no relation file (pg_filenode.map, PG_VERSION, a configuration file, ...).
std::optional<RelationFile> relation_file(std::string_view path);

struct Tablespace {
  std::uint32_t oid = 0;
  std::string location;  ///< where the link pg_tblspc/OID points, as PostgreSQL recorded it
};

struct DirectoryEntry {
  enum class Kind { directory, file };
  Kind kind = Kind::file;
  std::string path;
  std::uint64_t size = 0;  ///< when it was listed; a live file may have changed since
  std::uint32_t mode = 0;  ///< permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t inode = 0;
  std::int64_t birth = 0;  ///< statx birth time in nanoseconds since 1970, 0 if unknown
};

/// Walks a data directory in the order of whole paths by byte value per directory (each directory
/// comes before what is in it), calling `visit` for what a backup must hold. Leaves out what
/// PostgreSQL leaves out: the contents (not the directories) of pg_wal, pg_replslot, pg_dynshmem,
/// pg_notify, pg_serial, pg_snapshots, pg_subtrans, pg_stat_tmp; anything named pgsql_tmp*;
/// postgresql.auto.conf.tmp, current_logfiles.tmp, pg_internal.init*, backup_label(.old),
/// tablespace_map(.old), backup_manifest(.tmp), postmaster.pid, postmaster.opts, recovery.signal,
/// standby.signal, recovery.conf, recovery.done; temporary relations; unlogged relations except for
/// their init forks; the log directory stays (users put things there). In a tablespace only the
/// directory PG_<major>_<catalog version> (`version_directory`) counts. Sockets, fifos and other
/// special files are left out. A symbolic link other than pg_wal and those in pg_tblspc is
/// followed, as PostgreSQL would follow it; loops end with an Error. pg_wal and
/// pg_wal/archive_status (and pg_wal/summaries where the source has it) are visited as directories
/// even if pg_wal is a link.
///
/// The directory that a link pg_tblspc/OID leads to is visited as the directory "pg_tblspc/OID".
/// A file or directory that vanishes meanwhile is left out. A tablespace directory that lies inside
/// the data directory is not walked twice (pitfall B16).
void walk_data_directory(const base::fs::path& data_directory, std::string_view version_directory,
                         const std::function<void(const DirectoryEntry&)>& visit);

/// Does a backup leave this file out for its name alone? BASE_BACKUP sends some such files, as
/// standby.signal.
bool is_left_out(std::string_view path);

/// The tablespaces linked in pg_tblspc, sorted by oid. In-place tablespaces (a directory, not a
/// link) are not among them; walk_data_directory visits them as ordinary directories.
std::vector<Tablespace> linked_tablespaces(const base::fs::path& data_directory);

/// "15" of DATA/PG_VERSION; throws Error(not_found) with a hint if this is no data directory.
int major_version(const base::fs::path& data_directory);

}  // namespace holdfast::postgres
