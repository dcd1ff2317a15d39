#include "operations/backup.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/workers.h"
#include "operations/baseline.h"
#include "operations/catalog_names.h"
#include "operations/changed_since.h"
#include "operations/copy_files.h"
#include "operations/files.h"
#include "operations/increment.h"
#include "operations/set_back.h"
#include "operations/source.h"
#include "operations/sparse_packs.h"
#include "operations/store_wal.h"
#include "operations/stream_backup.h"
#include "operations/witness.h"
#include "postgres/administration.h"
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
        lease_(site.repository, source_.place, "backup") {
    for (const std::string& warning : source_.warnings) progress_.warn(warning);
    if (!site.cluster.data_directory.empty()) return;
    streamed_.emplace(site.cluster.connection, source_.control.system_id);
  }

  BackupInfo take() {
    try {
      begin();
      check_history();
      compare();
      copy();
      end();
      store_wal();
      check_changes();
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
  using Compare = BackupRequest::Compare;
  void begin();
  void begin_stream();
  void begin_stream(const postgres::BaseBackup::Manifest& earlier);
  bool plan_increment();
  void compare_increment();
  void give_up_increment(const std::string& why);
  void check_history();
  void compare();
  bool compare_by_list(Compare by);
  void copy();
  void copy_all();
  void copy_stream();
  void add_attachments();
  void ask_witness();
  void add_link(const postgres::Tablespace& tablespace);
  void check_alive();
  void end();
  void check_standby(const postgres::ControlFile& control);
  void store_wal();
  NeededWal needed_wal() const;
  void check_changes();
  std::string find_wrong_changes() const;
  void write_map();
  void check_stored() const;
  void commit();
  void remove_remains();
  std::map<std::string, std::uint64_t> stored_objects() const;

  const Site& site_;
  const BackupRequest& request_;
  base::Progress& progress_;
  postgres::Session session_;
  Source source_;
  repository::Backups backups_;
  repository::WalArchive archive_;
  repository::Lease lease_;
  std::optional<StreamBackup> streamed_;  ///< where there is no data directory
  BackupInfo info_;
  postgres::Session::BackupStop stop_;
  postgres::BackupLabel label_;
  CopyResult copied_;
  repository::BackupMap map_;
  Witness witness_;
  std::optional<postgres::Lsn> break_;  ///< the server was set back, and its WAL begins here
  std::optional<Baseline> baseline_;
  std::optional<Increment> increment_;  ///< the server was asked for changes only
  ChangesSince changes_;
  SentBlocks sent_;  ///< of files that the server sent in part
  std::vector<CutMeanwhile> cut_meanwhile_;
  std::set<repository::PackId> emptied_;
  ComparisonBase comparison_;
  std::map<std::string, std::uint64_t> objects_before_;
};

/// Packs and map shards, with their sizes.
std::map<std::string, std::uint64_t> Run::stored_objects() const {
  std::map<std::string, std::uint64_t> sizes;
  for (const char* part : {"/packs", "/maps"}) {
    for (const store::ObjectInfo& object :
         site_.repository.store().list(source_.place.directory() + part)) {
      sizes.emplace(object.name, object.size);
    }
  }
  return sizes;
}

/// A backup that failed must not fill the repository. While we hold the lease nobody else writes
/// packs and shards, so what was not there before is ours; without the lease nothing is touched.
void Run::remove_remains() {
  try {
    lease_.check();
    store::ObjectStore& store = site_.repository.store();
    if (store.stat(backups_.object_name(info_.id, "backup.json"))) return;
    store.remove(backups_.object_name(info_.id, "map"));
    for (const auto& [name, size] : stored_objects()) {
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
  info_.catalog_version = control.catalog_version;
  info_.hints_logged = info_.checksums || session_.setting("wal_log_hints") == "on";
  if (streamed_) return begin_stream();
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

/// Of changes only, if that can be.
void Run::begin_stream() {
  if (plan_increment()) {
    try {
      return begin_stream([this](auto& writer) { increment_->write_manifest(backups_, writer); });
    } catch (const Error& error) {
      if (error.code() != Code::postgres) throw;
      progress_.warn("could not have the server send changes only: {}", error.message());
    }
    increment_.reset();
    baseline_.reset();
  }
  begin_stream({});
}

void Run::begin_stream(const postgres::BaseBackup::Manifest& earlier) {
  const postgres::BackupBegin begun = streamed_->begin(request_.label, earlier);
  info_.start = begun.start;
  map_.links.clear();
  for (const postgres::Tablespace& each : begun.tablespaces) {
    // One that was made in place (allow_in_place_tablespaces) is a directory like others.
    if (each.location.starts_with('/')) add_link(each);
  }
}

/// Can the server be asked to leave out what has not changed?
bool Run::plan_increment() {
  const bool asked = request_.compare == Compare::summaries;
  if (!asked && request_.compare != Compare::automatic && request_.compare != Compare::wal) {
    return false;
  }
  std::string why = why_no_summaries(session_);
  // Who has not set it up need not be told each time.
  bool is_worth_saying = asked;
  if (why.empty()) {
    const postgres::Lsn now = session_.current_lsn();
    baseline_ = find_baseline(site_, source_, now, now);
    if (!baseline_) return false;
    is_worth_saying = true;
    why = find_obstacle(*baseline_, source_.control.timeline);
    if (why.empty()) {
      why = find_doubt(*baseline_, archive_, site_.cluster.connection, now, request_.workers);
    }
  }
  ChangesSince cuts;
  if (why.empty()) {
    cuts = cuts_by_summaries(*baseline_, session_);
    why = cuts.why_not;
  }
  if (why.empty()) {
    increment_.emplace(site_.repository.page_hash(), info_.id.text, *baseline_, source_.standby,
                       *std::move(cuts.blocks), source_.control.relation_segment_blocks);
    return true;
  }
  baseline_.reset();
  if (is_worth_saying) progress_.warn("could not have the server send changes only: {}", why);
  return false;
}

/// It has begun, and knows its own start now.
void Run::compare_increment() {
  std::string why = find_obstacle(*baseline_, source_.control.timeline);
  if (why.empty()) {
    changes_ = changes_by_summaries(*baseline_, session_, source_.control.timeline, info_.start);
    why = changes_.why_not;
  }
  if (why.empty()) {
    increment_->set_changes(*changes_.blocks);
    info_.compared = "summaries";
  } else {
    give_up_increment(why);
  }
}

void Run::give_up_increment(const std::string& why) {
  progress_.warn("{}; comparing all pages by content instead", why);
  increment_.reset();
  info_.compared = "content";
  begin_stream({});
}

/// Does the server write the WAL that the archive has of it (U4)?
void Run::check_history() {
  refuse_earlier_life(source_, archive_, info_.start, [&] { return session_.current_lsn(); });
  if (streamed_) return;  // its pg_wal cannot be read; what is stored will be compared
  const base::fs::path& directory = site_.cluster.data_directory;
  const auto history = server_history(directory, archive_, source_.control.timeline);
  if (!history) return;
  postgres::Lsn known = info_.start;
  for (const BackupInfo& each : read_catalog(site_).backups) {  // the newest last
    if (each.place.system_id != source_.place.system_id) continue;
    if (history->contains(each.timeline)) known = std::min(each.stop, info_.start);
  }
  break_ = find_break(directory, archive_, *history, info_.segment_size, known, info_.start);
  if (!break_) return;
  progress_.warn(
      "the server has other WAL than was archived: its storage was set back to an "
      "earlier state; no backup before this one can be brought further than {}",
      postgres::to_string(*break_));
}

/// Decides with what this backup is compared, and how.
void Run::compare() {
  if (request_.compare == Compare::nothing) return;
  progress_.begin("finding out what has changed", 0);
  // The new start decides whether it can be trusted; which one it is cannot change meanwhile.
  auto found = find_baseline(site_, source_, info_.start, session_.current_lsn());
  if (increment_ && (!found || found->backup.id.text != baseline_->backup.id.text)) {
    base::fail(Code::conflict, "could not go on with the backup: another one was made meanwhile");
  }
  if (!found) return;
  if (increment_) {
    baseline_->distrust = std::move(found->distrust);  // it refers to this baseline
  } else {
    baseline_ = std::move(found);
  }
  if (break_) baseline_->distrust = "the server has other WAL than was archived";
  info_.compared_with = baseline_->backup.id.text;
  comparison_.baseline = &*baseline_;
  std::map<repository::PackId, std::uint64_t> packs;
  const std::string directory = source_.place.directory() + "/packs/";
  for (const auto& [name, size] : objects_before_) {
    if (!name.starts_with(directory)) continue;
    packs[{repository::parse_object_id(name.substr(directory.size()))}] = size;
  }
  emptied_ = find_sparse_packs(backups_, *baseline_, packs);
  comparison_.emptied = &emptied_;
  info_.compared = "content";
  if (increment_) return compare_increment();
  if (!baseline_->distrust.empty()) {
    progress_.warn("comparing all pages with backup {} by content: {}", info_.compared_with,
                   baseline_->distrust);
    return;
  }
  if (streamed_) return;  // nobody says whether a file is still the same
  comparison_.trust_stamps = info_.hints_logged && baseline_->backup.hints_logged;
  const auto wanted = [&](Compare by) {
    return request_.compare == by || request_.compare == Compare::automatic;
  };
  if (wanted(Compare::wal) && compare_by_list(Compare::wal)) return;
  if ((wanted(Compare::summaries) || request_.compare == Compare::wal) &&
      compare_by_list(Compare::summaries)) {
    return;
  }
  if (request_.compare == Compare::content) comparison_.trust_stamps = false;
  if (comparison_.trust_stamps) info_.compared = "pages";
}

bool Run::compare_by_list(Compare by) {
  if (by == Compare::wal) {
    // Decoding more WAL than there is to read is no shorter way.
    const std::uint64_t wal = info_.start.value - baseline_->backup.start.value;
    if (request_.compare == Compare::automatic && wal > baseline_->backup.bytes / 2) return false;
    changes_ = changes_by_wal(*baseline_, archive_, site_.cluster.data_directory, info_.start,
                              request_.workers);
  } else {
    changes_ = changes_by_summaries(*baseline_, session_, source_.control.timeline, info_.start);
  }
  if (changes_.blocks) {
    comparison_.changed = &*changes_.blocks;
    info_.compared = by == Compare::wal ? "wal" : "summaries";
  } else if (request_.compare == by) {
    progress_.warn("cannot tell what has changed by {}: {}",
                   by == Compare::wal ? "WAL" : "WAL summaries", changes_.why_not);
  }
  return changes_.blocks.has_value();
}

void Run::add_link(const postgres::Tablespace& tablespace) {
  map_.links.push_back({fmt::format("pg_tblspc/{}", tablespace.oid), tablespace.location});
}

void Run::check_alive() {
  lease_.check();
  if (!session_.alive()) {
    throw Error(Code::unreachable, "could not go on with the backup: the server is gone",
                "start it, and run the backup again");
  }
}

void Run::add_attachments() {
  map_.attachments = source_.configuration_files;
  const std::string names = read_catalog_names(session_, site_.cluster.connection).text();
  map_.attachments.push_back({"catalog", base::copy(base::view(names))});
  map_.attachments.push_back({"witness", base::copy(base::view(to_text(witness_)))});
}

/// What the server says of its tables. It must hold where the backup ends, and so is taken before.
void Run::ask_witness() {
  progress_.begin("sampling rows for drills", 0);
  witness_ = take_witness(site_.repository, session_, site_.cluster.connection);
  for (const std::string& note : witness_.notes) progress_.warn("drills will know less: {}", note);
}

/// The agentless way: what copy() and the first half of end() do, by the server's own hands.
void Run::copy_stream() {
  ask_witness();
  CopyStreamRequest request;
  request.backup = info_.id.text;
  request.checksums = info_.checksums;
  request.segment_blocks = source_.control.relation_segment_blocks;
  request.workers = request_.workers;
  request.compare = comparison_;
  request.increment = increment_ ? &*increment_ : nullptr;
  request.check = [this] { check_alive(); };
  CopiedStream stream;
  try {
    stream = streamed_->copy(site_.repository, backups_, request, progress_);
  } catch (const WrongList& error) {
    remove_remains();
    give_up_increment(error.message());
    request.increment = nullptr;
    stream = streamed_->copy(site_.repository, backups_, request, progress_);
  }
  copied_ = std::move(stream.files);
  sent_ = std::move(stream.sent);
  cut_meanwhile_ = std::move(stream.cut);
  map_.directories = copied_.directories;
  add_attachments();
  const postgres::ControlFile control = postgres::parse_control_file(stream.control);
  if (control.system_id != source_.control.system_id) {
    base::fail(Code::foreign, "the server sent the files of system {}",
               postgres::to_string(control.system_id));
  }
  map_.attachments.push_back({"pg_control", std::move(stream.control)});
  stop_ = {stream.end.stop, std::move(stream.backup_label), std::move(stream.tablespace_map)};
}

void Run::copy() {
  if (streamed_) return copy_stream();
  try {
    copy_all();
  } catch (const WrongList& error) {
    progress_.warn("{}; comparing all pages instead", error.message());
    remove_remains();
    comparison_.changed = nullptr;
    info_.compared = comparison_.trust_stamps ? "pages" : "content";
    copy_all();
  }
  ask_witness();
  map_.directories = copied_.directories;
  for (const postgres::Tablespace& tablespace :
       postgres::linked_tablespaces(site_.cluster.data_directory)) {
    add_link(tablespace);
  }
  add_attachments();
  // Last of all files (POSTGRES 5.1): on a standby its minRecoveryPoint must be no older than any
  // page.
  map_.attachments.push_back(
      {"pg_control", postgres::read_control_file(site_.cluster.data_directory).bytes});
}

void Run::copy_all() {
  CopyRequest request;
  request.compare = comparison_;
  request.data_directory = site_.cluster.data_directory;
  request.version_directory = source_.version_directory;
  request.backup = info_.id.text;
  request.stamp = info_.start.value;
  request.checksums = info_.checksums;
  request.segment_blocks = source_.control.relation_segment_blocks;
  request.workers = request_.workers;
  request.check = [this] { check_alive(); };
  copied_ = copy_files(site_.repository, backups_, request, progress_);
}

void Run::end() {
  progress_.begin("ending the backup", 0);
  if (!streamed_) stop_ = session_.stop_backup();
  label_ = postgres::parse_backup_label(stop_.label_file);
  if (label_.start != info_.start) {
    base::fail(Code::postgres, "the server ended another backup than the one that was begun");
  }
  info_.stop = stop_.lsn;
  info_.stopped = std::max(session_.clock(), info_.started);
  info_.timeline = label_.timeline;
  if (source_.standby || label_.from_standby) {
    check_standby(postgres::parse_control_file(map_.attachments.back().content));
  }
  map_.attachments.push_back({"backup_label", base::copy(base::view(stop_.label_file))});
  if (!stop_.tablespace_map.empty()) {
    map_.attachments.push_back({"tablespace_map", base::copy(base::view(stop_.tablespace_map))});
  }
}

/// A backup of a standby becomes consistent where the pg_control in it says, on the timeline that
/// it began on.
void Run::check_standby(const postgres::ControlFile& control) {
  if (!label_.from_standby || !session_.in_recovery() ||
      control.min_recovery_timeline != info_.timeline) {
    throw Error(Code::postgres,
                "could not finish the backup: the standby was promoted, or followed its primary to "
                "another timeline, meanwhile",
                "run it again");
  }
  // A standby may lag: what was committed lately is neither in the files nor, perhaps, in the
  // archive, so the backup must not promise the present.
  info_.stopped = postgres::replayed_until(session_);
  info_.started = std::min(info_.started, info_.stopped);
  info_.stop = std::max({info_.stop, control.min_recovery_point, session_.current_lsn()});
}

/// What it needs of the archive. A standby must wait until its primary has filled a segment.
NeededWal Run::needed_wal() const {
  const postgres::SegmentSize size = info_.segment_size;
  return {source_.control.system_id, postgres::segment_at(info_.timeline, info_.start, size),
          postgres::segment_at(info_.timeline, {info_.stop.value - 1}, size), size,
          std::chrono::seconds(source_.standby ? 600 : 60)};
}

void Run::store_wal() {
  progress_.begin("storing the WAL that it needs", 0);
  // Before anything is stored behind it (INV-7).
  if (break_) {
    archive_.gaps().record({source_.control.timeline.value, break_->value, break_->value,
                            base::now(), "the storage of the server was set back"});
  }
  if (streamed_) {
    streamed_->wal().store(
        archive_, needed_wal(), request_.workers, [] { base::stop_if_interrupted(); }, progress_);
  } else {
    operations::store_wal(archive_, needed_wal(),
                          {site_.cluster.data_directory, session_, source_.standby},
                          request_.workers, progress_);
  }
}

/// The server decided what it sent. The archive has the WAL now that says what it had to send.
void Run::check_changes() {
  if (!increment_) return;
  progress_.begin("checking what the server left out", 0);
  const std::string wrong = find_wrong_changes();
  if (wrong.empty()) return;
  remove_remains();
  map_.attachments.clear();
  give_up_increment(wrong);
  copy();
  end();
  store_wal();
}

/// Empty if all came that the WAL names, and whatever was cut off while it came was really so.
std::string Run::find_wrong_changes() const {
  const postgres::TimelineHistory& history = baseline_->history;
  if (!cut_meanwhile_.empty()) {
    const ChangesSince meanwhile = changes_in_archive(history, info_.segment_size, archive_,
                                                      info_.start, info_.stop, request_.workers);
    for (const CutMeanwhile& each : cut_meanwhile_) {
      const auto pages =
          meanwhile.blocks ? meanwhile.blocks->pages_of(each.segment) : std::vector{each.page};
      const auto limit =
          meanwhile.blocks ? meanwhile.blocks->limit_of(each.segment.relation) : std::nullopt;
      const std::uint64_t page =
          std::uint64_t{each.segment.number} * each.segment.blocks + each.page;
      if (pages && (!limit || *limit > page)) {
        return WrongList(each.path, each.page).message();
      }
    }
  }
  // Decoding more WAL than the cluster has pages would take longer than having all of it sent.
  const std::uint64_t wal = info_.start.value - baseline_->backup.start.value;
  if (wal > std::max(baseline_->backup.bytes / 2, 16 * info_.segment_size.bytes)) return {};
  const ChangesSince changes =
      changes_by_wal(*baseline_, archive_, {}, info_.start, request_.workers);
  if (!changes.blocks) return {};  // the archive has no WAL of that time
  const std::string missing = sent_.find_missing(*changes.blocks);
  return missing.empty() ? "" : "the server did not send " + missing + ", which has changed";
}

void Run::write_map() {
  map_.shards = copied_.shards;
  backups_.write_map(info_.id, map_);
  info_.files = copied_.files + 1;  // and pg_control
  info_.bytes = copied_.bytes;
  info_.stored_bytes = copied_.stored_bytes;
  info_.damaged = copied_.damaged;
  info_.changes_checked = true;
}

/// INV-1: asks the store itself for everything that this backup needs, by name and size, be it new
/// or an earlier backup's (TRAPS BK2); maps, which are small, are read.
void Run::check_stored() const {
  const std::map<std::string, std::uint64_t> sizes = stored_objects();
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
    for (const auto& use : backups_.read_shard_packs(shard.id, decompressor)) {
      const std::string name = repository::pack_name(use.pack);
      const auto before = objects_before_.find(source_.place.directory() + "/" + name);
      expect(name, before != objects_before_.end() ? std::optional(before->second) : std::nullopt);
    }
  }
  backups_.read_map(info_.id);
  check_wal_stored(archive_, needed_wal(), info_.id.text);
}

void Run::commit() {
  // Storing WAL may have taken long; whoever took over meanwhile must not meet a second commit.
  lease_.check();
  base::stop_if_interrupted();
  backups_.commit(info_.id, to_json(info_));
}

}  // namespace

BackupInfo take_backup(const Site& site, const BackupRequest& request, base::Progress& progress) {
  BackupInfo taken = Run(site, request, progress).take();
  // It is committed, and nothing that becomes of these can change that.
  taken.taken_files = take_files(site, taken.place, taken.id, progress);
  return taken;
}

}  // namespace holdfast::operations
