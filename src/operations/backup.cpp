#include "operations/backup.h"

#include <fcntl.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "operations/catalog_names.h"
#include "operations/copy_files.h"
#include "operations/source.h"
#include "operations/wal_push.h"
#include "postgres/backup_label.h"
#include "postgres/session.h"
#include "repository/lease.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

/// One backup being taken. What it stored is removed again unless it is committed.
class Run {
 public:
  Run(const Site& site, const BackupRequest& request, base::Progress& progress)
      : site_(site),
        request_(request),
        progress_(progress),
        session_(site.cluster.connection),
        source_(examine_source(site, session_)),
        backups_(site.repository, source_.place),
        archive_(site.repository, source_.place),
        lease_(site.repository, source_.place, "backup") {}

  BackupInfo take() {
    try {
      begin();
      copy();
      end();
      store_wal();
      write_map();
      check_stored();
      commit();
    } catch (...) {
      remove_remains();
      throw;
    }
    return info_;
  }

 private:
  void begin();
  void copy();
  void end();
  void store_wal();
  void store_wal_file(const std::string& name);
  void write_map();
  void check_stored() const;
  void commit();
  void remove_remains();
  std::set<std::string> stored_objects() const;

  const Site& site_;
  const BackupRequest& request_;
  base::Progress& progress_;
  postgres::Session session_;
  Source source_;
  repository::Backups backups_;
  repository::WalArchive archive_;
  repository::Lease lease_;
  BackupInfo info_;
  postgres::BackupLabel label_;
  CopyResult copied_;
  repository::BackupMap map_;
  std::set<std::string> objects_before_;
};

std::set<std::string> Run::stored_objects() const {
  std::set<std::string> names;
  for (const char* part : {"/packs/", "/maps/"}) {
    const std::string directory = source_.place.directory() + part;
    for (const std::string& name :
         site_.repository.store().names(directory.substr(0, directory.size() - 1))) {
      names.insert(directory + name);
    }
  }
  return names;
}

/// A backup that failed must not fill the repository. While we hold the lease nobody else writes
/// packs and shards, so what was not there before is ours; without the lease nothing is touched.
void Run::remove_remains() {
  try {
    lease_.check();
    store::ObjectStore& store = site_.repository.store();
    if (store.stat(backups_.object_name(info_.id, "backup.json"))) return;
    store.remove(backups_.object_name(info_.id, "map"));
    for (const std::string& name : stored_objects()) {
      if (!objects_before_.contains(name)) store.remove(name);
    }
  } catch (const std::exception&) {
    // The reason of the failure matters more; `verify` lists what is left over.
  }
}

void Run::begin() {
  site_.repository.store().sweep_unfinished();
  objects_before_ = stored_objects();
  progress_.begin("waiting for a checkpoint", 0);
  const postgres::ControlFile& control = source_.control;
  info_.place = source_.place;
  info_.started = session_.clock();
  info_.id = repository::new_backup_id(info_.started);
  info_.segment_size = control.wal_segment_size;
  info_.server_version = session_.version_number();
  info_.time_zone = session_.setting("TimeZone").value_or("UTC");
  info_.checksums = control.checksum_version != 0;
  info_.start = session_.start_backup(request_.label, true).lsn;
  // The checkpoint that this made must be in the data directory that we read; in a stale copy of
  // it, or in another cluster's, it is not (TRAPS BK9).
  const postgres::ControlFile after =
      postgres::read_control_file(site_.cluster.data_directory).control;
  if (after.system_id != control.system_id || after.redo < info_.start) {
    throw Error(Code::foreign,
                fmt::format("cannot back up \"{}\": the server did not write its checkpoint there",
                            site_.cluster.data_directory.string()),
                "data_directory and connection in holdfast.toml must mean the same server");
  }
}

void Run::copy() {
  CopyRequest request;
  request.data_directory = site_.cluster.data_directory;
  request.version_directory = source_.version_directory;
  request.backup = info_.id.text;
  request.stamp = info_.start.value;
  request.checksums = info_.checksums;
  request.segment_blocks = source_.control.relation_segment_blocks;
  request.workers = request_.workers;
  request.check = [this] {
    lease_.check();
    if (!session_.alive()) {
      throw Error(Code::unreachable, "could not go on with the backup: the server is gone",
                  "start it, and run the backup again");
    }
  };
  copied_ = copy_files(site_.repository, backups_, request, progress_);
  map_.directories = copied_.directories;
  for (const postgres::Tablespace& tablespace :
       postgres::linked_tablespaces(site_.cluster.data_directory)) {
    map_.links.push_back({fmt::format("pg_tblspc/{}", tablespace.oid), tablespace.location});
  }
  map_.attachments = source_.configuration_files;
  const std::string names = read_catalog_names(session_, site_.cluster.connection).text();
  map_.attachments.push_back({"catalog", base::copy(base::view(names))});
  // Last of all files (POSTGRES 5.1): on a standby its minRecoveryPoint must be no older than any
  // page.
  map_.attachments.push_back(
      {"pg_control", postgres::read_control_file(site_.cluster.data_directory).bytes});
}

void Run::end() {
  progress_.begin("ending the backup", 0);
  const postgres::Session::BackupStop stop = session_.stop_backup();
  label_ = postgres::parse_backup_label(stop.label_file);
  if (label_.start != info_.start) {
    base::fail(Code::postgres, "the server ended another backup than the one that was begun");
  }
  info_.stop = stop.lsn;
  info_.stopped = std::max(session_.clock(), info_.started);
  info_.timeline = label_.timeline;
  map_.attachments.push_back({"backup_label", base::copy(base::view(stop.label_file))});
  if (!stop.tablespace_map.empty()) {
    map_.attachments.push_back({"tablespace_map", base::copy(base::view(stop.tablespace_map))});
  }
}

void Run::store_wal_file(const std::string& name) {
  const base::fs::path file = site_.cluster.data_directory / "pg_wal" / name;
  constexpr auto limit = std::chrono::seconds(60);
  const auto give_up = std::chrono::steady_clock::now() + limit;
  while (!archive_.has(name)) {
    if (base::status_of(file)) {
      try {
        push_wal_of(archive_, source_.control.system_id, file, request_.workers);
        return;
      } catch (const Error&) {
        // The server may have recycled it while we read; then somebody archived it before.
        if (base::status_of(file) && !archive_.has(name)) throw;
      }
    }
    base::stop_if_interrupted();
    if (std::chrono::steady_clock::now() > give_up) {
      throw Error(
          Code::wal_missing,
          fmt::format("could not store WAL file {}, which the backup needs: it is neither in "
                      "pg_wal nor in the repository",
                      name),
          "set archive_command (see `holdfast doctor`), so that WAL is kept until it is "
          "archived, and run it again");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

void Run::store_wal() {
  progress_.begin("storing the WAL that it needs", 0);
  if (info_.timeline.value > 1) store_wal_file(postgres::history_file_name(info_.timeline));
  const postgres::SegmentSize size = info_.segment_size;
  const auto first = postgres::segment_at(info_.timeline, info_.start, size);
  const auto last = postgres::segment_at(info_.timeline, {info_.stop.value - 1}, size);
  for (postgres::Segment segment = first; segment <= last; ++segment.number) {
    store_wal_file(postgres::file_name(segment, size));
  }
}

void Run::write_map() {
  map_.shards = copied_.shards;
  backups_.write_map(info_.id, map_);
  info_.files = copied_.files + 1;  // and pg_control
  info_.bytes = copied_.bytes;
  info_.stored_bytes = copied_.stored_bytes;
  info_.damaged = copied_.damaged;
}

/// INV-1: asks the store itself for everything that this backup needs, by name and size; maps,
/// which are small, are read.
void Run::check_stored() const {
  store::ObjectStore& store = site_.repository.store();
  std::map<std::string, std::uint64_t> sizes;
  for (const char* part : {"/packs", "/maps"}) {
    for (const store::ObjectInfo& object : store.list(source_.place.directory() + part)) {
      sizes[object.name] = object.size;
    }
  }
  const auto expect = [&](const std::string& name, std::optional<std::uint64_t> size) {
    const auto found = sizes.find(source_.place.directory() + "/" + name);
    if (found == sizes.end() || (size && found->second != *size)) {
      throw Error(
          Code::corrupt,
          fmt::format("could not finish backup {}: object {} is no longer in the repository "
                      "as it was written",
                      info_.id.text, name),
          "find out who removes objects from the repository, and run it again");
    }
  };
  for (const auto& pack : copied_.packs) expect(repository::pack_name(pack.id), pack.bytes);
  base::Decompressor decompressor;
  for (const auto& shard : copied_.shards) {
    expect("maps/" + repository::to_string(shard.id), {});
    backups_.read_shard_packs(shard.id, decompressor);
  }
  backups_.read_map(info_.id);
  const auto last =
      postgres::segment_at(info_.timeline, {info_.stop.value - 1}, info_.segment_size);
  for (auto segment = postgres::segment_at(info_.timeline, info_.start, info_.segment_size);
       segment <= last; ++segment.number) {
    const std::string name = postgres::file_name(segment, info_.segment_size);
    if (!archive_.has(name)) {
      base::fail(Code::corrupt,
                 "could not finish backup {}: WAL file {} is no longer in the repository",
                 info_.id.text, name);
    }
  }
}

void Run::commit() {
  // Storing WAL may have taken long; whoever took over meanwhile must not meet a second commit.
  lease_.check();
  base::stop_if_interrupted();
  backups_.commit(info_.id, to_json(info_));
}

}  // namespace

BackupInfo take_backup(const Site& site, const BackupRequest& request, base::Progress& progress) {
  return Run(site, request, progress).take();
}

}  // namespace holdfast::operations
