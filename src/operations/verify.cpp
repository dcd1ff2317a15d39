#include "operations/verify.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/workers.h"
#include "postgres/segment_content.h"
#include "postgres/wal_segment.h"
#include "repository/file_sets.h"
#include "repository/gaps.h"
#include "repository/migrations.h"
#include "repository/pack.h"
#include "repository/pins.h"
#include "repository/secret_bundles.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using repository::PackId;

/// What reading a pack told.
struct PackState {
  std::uint32_t slots = 0;
  std::set<std::uint32_t> bad_frames;
  std::string problem;  ///< the pack as a whole cannot be read
};

/// Only damage is a finding; that a store does not answer is not (TRAPS VE5).
template <typename Work>
std::optional<std::string> damage_of(const Work& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    if (error.code() != Code::corrupt && error.code() != Code::foreign) throw;
    return error.message();
  }
}

class SystemVerifier {
 public:
  SystemVerifier(const Site& site, SystemView system, unsigned workers, base::Progress& progress,
                 VerifyReport& report)
      : repository_(site.repository),
        system_(std::move(system)),
        workers_(workers),
        progress_(progress),
        report_(report),
        backups_(site.repository, system_.place),
        directory_(system_.place.directory()) {}

  void run() {
    read_packs();
    read_wal();  // first: a segment that cannot be read is none, for backups and windows
    for (const BackupInfo& backup : system_.backups) check_backup(backup);
    check_timelines();
    count_orphans();
  }

  BackupVerdict run_only(const BackupInfo& backup) {
    only_ = backup;
    find_packs_of(backup);
    read_packs();
    read_wal();
    check_backup(backup);
    return std::move(report_.backups.back());
  }

 private:
  void find_packs_of(const BackupInfo& backup);
  bool is_needed(const std::string& wal_file) const;
  void read_packs();
  PackState read_pack(const PackId& id);
  void check_backup(const BackupInfo& backup);
  void check_shard(const repository::ShardReference& reference, std::vector<std::string>& problems);
  void check_file(const repository::FileEntry& file, std::vector<std::string>& problems);
  void check_wal_of(const BackupInfo& backup, std::vector<std::string>& problems);
  void read_wal();
  void read_slices();
  void check_timelines();
  void count_orphans();

  const repository::Repository& repository_;
  SystemView system_;
  unsigned workers_;
  base::Progress& progress_;
  VerifyReport& report_;
  repository::Backups backups_;
  std::string directory_;
  std::map<PackId, PackState> packs_;
  std::map<std::string, std::uint64_t> pack_sizes_;
  std::set<std::string> used_;  ///< names of objects that backups refer to
  base::Decompressor decompressor_;
  std::optional<BackupInfo> only_;  ///< nothing that others need is read
  std::set<PackId> wanted_;         ///< its packs
};

/// What cannot be read here is found, and said, when the backup is checked.
void SystemVerifier::find_packs_of(const BackupInfo& backup) {
  damage_of([&] {
    for (const auto& shard : backups_.read_map(backup.id).shards) {
      damage_of([&] {
        for (const auto& use : backups_.read_shard_packs(shard.id, decompressor_)) {
          wanted_.insert(use.pack);
        }
      });
    }
  });
}

bool SystemVerifier::is_needed(const std::string& wal_file) const {
  if (!only_) return true;
  const auto name = postgres::parse_wal_file_name(wal_file);
  if (!name || name->kind != postgres::WalFileName::Kind::segment) return false;
  const auto segment = name->segment(system_.coverage.segment_size());
  const std::uint64_t bytes = system_.coverage.segment_size().bytes;
  return segment && segment->number >= only_->start.value / bytes &&
         segment->number <= only_->stop.value / bytes;
}

PackState SystemVerifier::read_pack(const PackId& id) {
  PackState state;
  base::Decompressor decompressor;
  const auto damage = damage_of([&] {
    repository::PackReader reader(repository_.store(), directory_, repository_.protection(), id);
    base::Bytes raw;
    const std::uint32_t frames = reader.data_frames();
    for (std::uint32_t frame = 0; frame < frames; ++frame) {
      raw.resize(reader.raw_size(frame));
      state.slots += static_cast<std::uint32_t>(raw.size() / repository::page_bytes);
      const auto bad = damage_of([&] {
        reader.fetch(frame, 1);
        reader.decode(frame, decompressor, raw);
      });
      if (bad) state.bad_frames.insert(frame);
      progress_.add(reader.stored_size(frame));
    }
    const auto bad_description = damage_of([&] {
      if (reader.description(decompressor).hashes.size() != state.slots) {
        base::fail(Code::corrupt, "its description is of other pages");
      }
    });
    if (bad_description) {
      state.problem = fmt::format("pack {}: {}", repository::to_string(id), *bad_description);
    }
  });
  if (damage) {
    state = {0, {}, *damage};
  } else if (!state.bad_frames.empty()) {
    state.problem = fmt::format("pack {}: {} of its frames are corrupt", repository::to_string(id),
                                state.bad_frames.size());
  }
  return state;
}

void SystemVerifier::read_packs() {
  std::vector<PackId> ids;
  std::uint64_t total = 0;
  for (const store::ObjectInfo& object : repository_.store().list(directory_ + "/packs")) {
    PackId id;
    const auto stray = damage_of([&] {
      static_cast<repository::ObjectId&>(id) =
          repository::parse_object_id(object.name.substr(object.name.rfind('/') + 1));
    });
    if (stray) {
      report_.problems.push_back(fmt::format("\"{}\" is no pack", object.name));
      continue;
    }
    if (only_ && !wanted_.contains(id)) continue;
    ids.push_back(id);
    total += object.size;
    pack_sizes_[object.name] = object.size;
  }
  progress_.begin("reading packs", total);
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  base::run_workers(workers_, [&](unsigned, const std::stop_token& stop) {
    for (std::size_t i = next++; i < ids.size() && !stop.stop_requested(); i = next++) {
      PackState state = read_pack(ids[i]);
      const std::lock_guard lock(mutex);
      packs_[ids[i]] = std::move(state);
    }
  });
  for (const auto& [id, state] : packs_) {
    if (!state.problem.empty()) report_.problems.push_back(state.problem);
    report_.frames += (state.slots + repository::pages_per_frame - 1) / repository::pages_per_frame;
  }
  report_.packs += packs_.size();
  report_.bytes += total;
}

void SystemVerifier::check_file(const repository::FileEntry& file,
                                std::vector<std::string>& problems) {
  const auto complain = [&](std::string_view why) {
    problems.push_back(fmt::format("\"{}\" cannot be restored: {}", file.path, why));
  };
  for (const repository::Run& run : file.runs) {
    if (!run.pack) continue;
    used_.insert(directory_ + "/" + repository::pack_name(*run.pack));
    const auto found = packs_.find(*run.pack);
    const std::string name = repository::to_string(*run.pack);
    if (found == packs_.end()) return complain(fmt::format("pack {} is missing", name));
    const PackState& pack = found->second;
    if (run.slot.value + run.pages > pack.slots) {
      return complain(fmt::format("pack {} does not hold its pages", name));
    }
    const std::uint32_t last =
        repository::Slot{static_cast<std::uint32_t>(run.slot.value + run.pages - 1)}.frame();
    const auto bad = pack.bad_frames.lower_bound(run.slot.frame());
    if (bad != pack.bad_frames.end() && *bad <= last) {
      return complain(fmt::format("frame {} of pack {} is corrupt", *bad, name));
    }
  }
}

void SystemVerifier::check_shard(const repository::ShardReference& reference,
                                 std::vector<std::string>& problems) {
  used_.insert(fmt::format("{}/maps/{}", directory_, repository::to_string(reference.id)));
  const auto damage = damage_of([&] {
    const repository::Shard shard = backups_.read_shard(reference.id, decompressor_);
    if (shard.files.size() != reference.files || shard.files.empty() ||
        shard.files.front().path != reference.first_path ||
        shard.files.back().path != reference.last_path) {
      base::fail(Code::corrupt, "map shard {} holds other files than the backup's map says",
                 repository::to_string(reference.id));
    }
    for (const repository::FileEntry& file : shard.files) check_file(file, problems);
  });
  if (damage) {
    problems.push_back(fmt::format("{} files from \"{}\" to \"{}\" cannot be restored: {}",
                                   reference.files, reference.first_path, reference.last_path,
                                   *damage));
  }
}

void SystemVerifier::check_wal_of(const BackupInfo& backup, std::vector<std::string>& problems) {
  const auto history = system_.coverage.history(backup.timeline);
  if (!history) {
    problems.push_back(fmt::format("{} is missing", postgres::history_file_name(backup.timeline)));
  } else if (!system_.can_use(backup, *history)) {
    const auto size = system_.coverage.segment_size();
    const auto hole = system_.coverage.contiguous_end(*history, backup.start);
    problems.push_back(
        fmt::format("it cannot be made consistent: WAL segment {} is missing or corrupt",
                    postgres::file_name(postgres::segment_at(backup.timeline, hole, size), size)));
  }
}

void SystemVerifier::check_backup(const BackupInfo& backup) {
  progress_.begin(fmt::format("checking backup {}", backup.id.text), 0);
  BackupVerdict verdict{backup, {}};
  for (const char* part : {"map", "backup.json"})
    used_.insert(backups_.object_name(backup.id, part));
  const auto damage = damage_of([&] {
    const repository::BackupMap map = backups_.read_map(backup.id);
    std::uint64_t files = 1;
    for (const auto& shard : map.shards) {
      files += shard.files;
      check_shard(shard, verdict.problems);
    }
    if (files != backup.files) {
      verdict.problems.push_back(
          fmt::format("its map holds {} files, but it had {}", files, backup.files));
    }
    for (const char* name : {"backup_label", "pg_control"}) {
      if (map.attachment(name) == nullptr) {
        verdict.problems.push_back(fmt::format("its map holds no {}", name));
      }
    }
  });
  if (damage) verdict.problems.push_back(*damage);
  check_wal_of(backup, verdict.problems);
  report_.backups.push_back(std::move(verdict));
}

void SystemVerifier::read_wal() {
  std::vector<std::string> names = system_.archive.histories();
  std::uint64_t total = 0;
  std::map<std::string, std::uint64_t> sizes;
  for (const std::string& timeline : system_.archive.timelines()) {
    for (const auto& file : system_.archive.files(timeline)) {
      if (!is_needed(file.name)) continue;
      names.push_back(file.name);
      sizes[file.name] = file.stored_bytes;
      total += file.stored_bytes;
    }
  }
  progress_.begin("reading WAL", total);
  const postgres::SystemId system{std::stoull(system_.place.system_id)};
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  base::run_workers(workers_, [&](unsigned, const std::stop_token& stop) {
    for (std::size_t i = next++; i < names.size() && !stop.stop_requested(); i = next++) {
      const auto damage = damage_of([&] {
        const auto name = postgres::parse_wal_file_name(names[i]);
        if (!name) base::fail(Code::corrupt, "\"{}\" is no WAL file", names[i]);
        const auto bytes = system_.archive.get(names[i]);
        if (!bytes) base::fail(Code::corrupt, "it was listed but is gone");
        if (name->kind != postgres::WalFileName::Kind::segment) return;
        const postgres::SegmentContent content(*bytes);
        postgres::check_segment(content.bytes(), *name, system);
        if (!content.had_remains()) return;
        const std::lock_guard lock(mutex);
        report_.remains.push_back(names[i]);
      });
      progress_.add(sizes[names[i]]);
      if (!damage) continue;
      const std::lock_guard lock(mutex);
      report_.problems.push_back(fmt::format("WAL file {}: {}", names[i], *damage));
      const auto name = postgres::parse_wal_file_name(names[i]);
      const auto segment = name ? name->segment(system_.coverage.segment_size())
                                : std::optional<postgres::Segment>();
      if (segment && name->kind == postgres::WalFileName::Kind::segment) {
        system_.coverage.forget(*segment);
      }
    }
  });
  std::ranges::sort(report_.remains);
  report_.wal_segments += names.size();
  report_.bytes += total;
  read_slices();
}

/// Those of segments that are not complete; others have done their duty.
void SystemVerifier::read_slices() {
  const repository::WalSlices slices = system_.archive.slices();
  const auto partials = system_.coverage.partials();
  for (const auto& [segment, partial] : partials) {
    const auto size = system_.coverage.segment_size();
    const std::string name = postgres::file_name(segment, size);
    const auto damage = damage_of([&] {
      const auto read = slices.assemble(name, postgres::start_of(segment, size).value);
      report_.bytes += read.bytes.size();
      const bool completed = system_.archive.has(name);  // meanwhile
      if (read.bytes.size() < partial.end.value % size.bytes && !completed) {
        base::fail(Code::corrupt, "a slice that was listed is gone");
      }
    });
    if (!damage) continue;
    report_.problems.push_back(fmt::format("slices of WAL file {}: {}", name, *damage));
    system_.coverage.forget(segment);
  }
}

void SystemVerifier::check_timelines() {
  for (const postgres::Timeline missing : system_.coverage.missing_histories()) {
    report_.problems.push_back(
        fmt::format("{} is missing: its timeline, and those that came from it, cannot be followed",
                    postgres::history_file_name(missing)));
  }
  const auto timelines = system_.coverage.timelines();
  const auto history = system_.coverage.history(timelines.back());
  if (!history) return;
  for (RecoveryWindow& window : recovery_windows(system_, *history)) {
    if (window.ends_in_hole) {
      report_.problems.push_back(why_it_ends(window) + ": the recovery window ends there");
    }
    report_.windows.push_back(std::move(window));
  }
}

/// What a backup that was killed left behind. No problem, but it takes room.
void SystemVerifier::count_orphans() {
  for (const char* part : {"/packs", "/maps"}) {
    for (const store::ObjectInfo& object : repository_.store().list(directory_ + part)) {
      if (used_.contains(object.name)) continue;
      ++report_.orphans;
      report_.orphan_bytes += object.size;
    }
  }
}

/// That they are as they were written; they are sealed to people, so nothing here could open them.
void check_secret_bundles(const Site& site, VerifyReport& report) {
  const repository::SecretBundles bundles(site.repository, site.cluster.name);
  for (const std::string& id : bundles.unfinished()) {
    report.problems.push_back(
        fmt::format("secrets {}: nothing describes this bundle, so it is none: `secrets seal` was "
                    "cut off, or runs just now",
                    id));
  }
  for (const std::string& id : bundles.all()) {
    const auto damage = damage_of([&] { report.bytes += bundles.sealed(id).size(); });
    ++report.secret_bundles;
    if (damage) report.problems.push_back(fmt::format("secrets {}: {}", id, *damage));
  }
}

void check_file_sets(const Site& site, VerifyReport& report) {
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    const repository::ClusterPlace place{site.cluster.name, system};
    for (const auto& name : repository::file_sets(site.repository, place)) {
      const auto damage = damage_of([&] {
        repository::FileSetReader reader(site.repository, place, name);
        report.bytes += reader.stored_bytes();
        base::View content;
        while (reader.next(content)) base::stop_if_interrupted();
      });
      ++report.file_sets;
      if (!damage) continue;
      report.problems.push_back(
          fmt::format("files {} of backup {}: {}", name.name, name.backup.text, *damage));
    }
  }
}

/// Pins, gaps, migrations and the marks of backups that went: are they as they were written?
void check_records(const Site& site, const repository::ClusterPlace& place, VerifyReport& report) {
  const auto say = [&](const std::string& what) {
    report.problems.push_back(what + " is not as it was written, or cannot be read");
  };
  for (const std::string& gap : repository::Gaps(site.repository, place).list().unreadable) {
    say(fmt::format("\"{}\"", gap));
  }
  for (const repository::Pin& pin : repository::Pins(site.repository, place).all()) {
    if (!pin.readable) {
      say(fmt::format("pin \"{}/pins/{}/{}\", which holds until `holdfast unpin`,",
                      place.directory(), pin.backup.text, pin.id));
    }
  }
  for (const auto& each : repository::Migrations(site.repository, place).all()) {
    if (!each.readable) say(fmt::format("\"{}/migrations/{}\"", place.directory(), each.id));
  }
}

/// What no other check has read is read: keys, leases, marks, the records of all kinds, and what
/// has come by kinds that are still to be.
void read_others(const Site& site, VerifyReport& report) {
  store::ObjectStore& store = site.repository.store();
  const std::string own = "clusters/" + site.cluster.name + "/";
  const auto is_read_elsewhere = [&](const std::string& name) {
    if (name.starts_with("clusters/") && !name.starts_with(own))
      return true;  // when it is verified
    // clusters/NAME/SYSTEM/KIND/...
    std::size_t at = 0;
    for (int parts = 0; parts < 3 && at != std::string::npos; ++parts) at = name.find('/', at + 1);
    if (!name.starts_with("clusters/") || at == std::string::npos) return false;
    const std::string_view kind = std::string_view(name).substr(at + 1);
    return kind.starts_with("packs/") || kind.starts_with("wal/") || kind.starts_with("files/") ||
           kind.ends_with("/backup.json");
  };
  const auto whole = damage_of([&] {
    for (const store::ObjectInfo& object : store.list("")) {
      if (is_read_elsewhere(object.name)) continue;
      base::stop_if_interrupted();
      const auto damage = damage_of([&] { store.get(object.name); });
      if (damage) report.problems.push_back(*damage);
    }
  });
  if (whole) report.problems.push_back(*whole);
}

}  // namespace

bool VerifyReport::ok() const {
  return problems.empty() && unreadable.empty() &&
         std::ranges::all_of(backups, [](const auto& each) {
           return each.problems.empty() && !each.backup.is_suspect();
         });
}

VerifyReport verify(const Site& site, unsigned workers, base::Progress& progress) {
  const Catalog catalog = read_catalog(site);
  VerifyReport report;
  report.unreadable = catalog.unreadable;
  if (catalog.backups.empty() && catalog.unreadable.empty()) {
    throw Error(Code::not_found,
                fmt::format("cannot verify: there is no backup of cluster {}", site.cluster.name),
                "take one with `holdfast backup`");
  }
  for (const SystemView& system : view_systems(site, catalog)) {
    SystemVerifier(site, system, workers, progress, report).run();
  }
  check_secret_bundles(site, report);
  check_file_sets(site, report);
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    check_records(site, {site.cluster.name, system}, report);
  }
  read_others(site, report);
  return report;
}

BackupVerdict verify_backup(const Site& site, const repository::BackupId& backup, unsigned workers,
                            base::Progress& progress) {
  for (const SystemView& system : view_systems(site, read_catalog(site))) {
    for (const BackupInfo& each : system.backups) {
      if (each.id.text != backup.text) continue;
      VerifyReport report;
      return SystemVerifier(site, system, workers, progress, report).run_only(each);
    }
  }
  throw Error(Code::not_found, fmt::format("cannot find backup {}", backup.text),
              "`holdfast list` shows the backups");
}

}  // namespace holdfast::operations
