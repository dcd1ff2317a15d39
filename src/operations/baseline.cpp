#include "operations/baseline.h"

#include <algorithm>

#include "base/error.h"
#include "operations/set_back.h"
#include "postgres/wal_segment.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using postgres::Timeline;
using postgres::TimelineHistory;

bool archive_is_ahead(const repository::WalArchive& archive, const Source& source, Lsn insert) {
  const postgres::SegmentSize size = source.control.wal_segment_size;
  const auto here = postgres::segment_at(source.control.timeline, insert, size);
  const auto files = archive.files(fmt::format("{:08X}", source.control.timeline.value));
  return std::ranges::any_of(files, [&](const repository::WalArchive::File& file) {
    const auto name = postgres::parse_wal_file_name(file.name);
    if (!name || name->kind != postgres::WalFileName::Kind::segment) return false;
    const auto segment = name->segment(size);
    return segment && segment->number > here.number;
  });
}

/// Empty if nothing speaks against it. `history` is set as far as it is known.
std::string find_distrust(const Site& site, const repository::WalArchive& archive,
                          const Source& source, Lsn start, Lsn insert, Baseline& baseline) {
  const BackupInfo& backup = baseline.backup;
  if (backup.is_damaged()) return "it has damaged pages";
  if (backup.is_suspect()) return "it is suspect: what the server left out was not checked";
  if (backup.checksums != (source.control.checksum_version != 0)) {
    return "data checksums were turned on or off since";
  }
  if (backup.catalog_version != source.control.catalog_version) {
    return "the server was upgraded since";
  }
  const auto history =
      server_history(site.cluster.data_directory, archive, source.control.timeline);
  if (!history) return "the history of the server's timeline is not known";
  baseline.history = *history;
  if (!history->passes(backup.timeline, backup.stop)) {
    return "the server left its timeline before that backup ended";
  }
  if (start < backup.stop || insert < backup.stop) {
    return "the server is at an earlier position than that backup";
  }
  // A standby is always behind what its primary archives.
  if (!source.standby && archive_is_ahead(archive, source, insert)) {
    return "the repository has later WAL than the server";
  }
  return {};
}

/// The files of a shard; nullopt if it cannot be read.
std::optional<std::vector<repository::FileEntry>> read_if_sound(const repository::Backups& backups,
                                                                const repository::ShardId& id,
                                                                base::Decompressor& decompressor) {
  try {
    return backups.read_shard(id, decompressor).files;
  } catch (const Error& error) {
    if (error.code() != Code::corrupt) throw;
    return std::nullopt;
  }
}

}  // namespace

std::optional<Baseline> find_baseline(const Site& site, const Source& source, Lsn start,
                                      Lsn insert) {
  const repository::Backups backups(site.repository, source.place);
  const repository::WalArchive archive(site.repository, source.place);
  std::vector<BackupInfo> candidates;
  for (BackupInfo& each : read_catalog(site).backups) {
    if (each.place.system_id == source.place.system_id) candidates.push_back(std::move(each));
  }
  while (!candidates.empty()) {
    Baseline baseline;
    baseline.backup = std::move(candidates.back());
    candidates.pop_back();
    try {
      baseline.map = backups.read_map(baseline.backup.id);
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      continue;  // an older one serves as well; `verify` reports this one
    }
    baseline.distrust = find_distrust(site, archive, source, start, insert, baseline);
    return baseline;
  }
  return std::nullopt;
}

void PreviousFiles::load() {
  auto files = read_if_sound(backups_, shards_[shard_].id, decompressor_);
  if (!files) ++unreadable_;
  files_.files = std::move(files).value_or(std::vector<repository::FileEntry>());
  next_ = 0;
  loaded_ = true;
}

std::optional<repository::FileEntry> PreviousFiles::find(const std::string& path) {
  if (shards_.empty()) return std::nullopt;
  while (shard_ + 1 < shards_.size() && repository::comes_before(shards_[shard_].last_path, path)) {
    ++shard_;
    loaded_ = false;
  }
  if (!loaded_) load();
  auto& files = files_.files;
  while (next_ < files.size() && repository::comes_before(files[next_].path, path)) ++next_;
  if (next_ == files.size() || files[next_].path != path) return std::nullopt;
  return std::move(files[next_++]);
}

const PreviousLookup::Files& PreviousLookup::load(std::size_t shard) {
  constexpr std::size_t shards_kept = 8;
  const auto found = std::ranges::find(loaded_, shard, &std::pair<std::size_t, Files>::first);
  if (found != loaded_.end()) {
    loaded_.splice(loaded_.begin(), loaded_, found);
  } else {
    loaded_.emplace_front(
        shard, read_if_sound(backups_, shards_[shard].id, decompressor_).value_or(Files()));
    if (loaded_.size() > shards_kept) loaded_.pop_back();
  }
  return loaded_.front().second;
}

std::optional<repository::FileEntry> PreviousLookup::find(const std::string& path) {
  const auto shard = std::ranges::partition_point(
      shards_, [&](const auto& each) { return repository::comes_before(each.last_path, path); });
  if (shard == shards_.end()) return std::nullopt;
  const Files& files = load(static_cast<std::size_t>(shard - shards_.begin()));
  const auto found = std::ranges::partition_point(files, [&](const repository::FileEntry& each) {
    return repository::comes_before(each.path, path);
  });
  if (found == files.end() || found->path != path) return std::nullopt;
  return *found;
}

}  // namespace holdfast::operations
