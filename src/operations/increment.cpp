#include "operations/increment.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/workers.h"
#include "operations/changed_since.h"
#include "postgres/backup_label.h"
#include "postgres/data_directory.h"
#include "postgres/segment_content.h"
#include "postgres/wal_stream.h"

namespace holdfast::operations {

namespace {

using postgres::Lsn;
using postgres::Segment;
using repository::FileEntry;

/// Of so many main forks one is sent whole.
constexpr std::uint64_t samples_one_in = 64;
/// A server that has the WAL sends it at once.
constexpr std::chrono::seconds patience(10);

bool is_of_standby(const Baseline& baseline) {
  const repository::Attachment* label = baseline.map.attachment("backup_label");
  return label == nullptr || postgres::parse_backup_label(base::text(label->content)).from_standby;
}

enum class Same { yes, no, unknown };

/// Compares a segment that the archive has with what the server sends of it.
Same compare_segment(const repository::WalArchive& archive, const std::string& connection,
                     Segment segment, postgres::SegmentSize size) {
  const auto archived = archive.get(postgres::file_name(segment, size));
  if (!archived) return Same::unknown;
  postgres::Replication replication(connection, "holdfast");
  try {
    postgres::WalStream stream(replication, "", segment.timeline, start_of(segment, size), {}, {});
    const auto give_up = std::chrono::steady_clock::now() + patience;
    // What stands behind a switch is no WAL, and may differ.
    const postgres::SegmentEnd end = postgres::read_to_segment_end(*archived);
    const std::size_t used = end.switched ? end.used : archived->size();
    for (std::size_t at = 0; at < used;) {
      base::stop_if_interrupted();
      const auto event = stream.next(std::chrono::milliseconds(500));
      if (event == postgres::WalStream::Event::data) {
        const base::View own = stream.bytes().first(std::min(stream.bytes().size(), used - at));
        if (!std::ranges::equal(own, base::View(*archived).subspan(at, own.size()))) {
          return Same::no;
        }
        at += own.size();
      } else if (event == postgres::WalStream::Event::end ||
                 std::chrono::steady_clock::now() > give_up) {
        return Same::unknown;
      }
    }
    return Same::yes;
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres) throw;
    return Same::unknown;  // it has removed it
  }
}

/// The last segment up to which the archive has all from `first` on.
std::optional<Segment> last_in_a_row(const repository::WalArchive& archive, Segment first,
                                     postgres::SegmentSize size) {
  std::set<std::uint64_t> numbers;
  for (const auto& file : archive.files(fmt::format("{:08X}", first.timeline.value))) {
    const auto name = postgres::parse_wal_file_name(file.name);
    if (!name || name->kind != postgres::WalFileName::Kind::segment) continue;
    if (const auto segment = name->segment(size)) numbers.insert(segment->number);
  }
  std::optional<Segment> last;
  for (; numbers.contains(first.number); ++first.number) last = first;
  return last;
}

}  // namespace

Increment::Increment(const base::KeyedHash& hash, std::string backup, const Baseline& baseline,
                     bool standby, ChangedBlocks cuts, std::uint32_t segment_blocks)
    : hash_(hash),
      backup_(std::move(backup)),
      baseline_(baseline),
      hints_differ_(standby || is_of_standby(baseline) || !baseline.backup.hints_logged),
      cuts_(std::move(cuts)),
      segment_blocks_(segment_blocks) {}

bool Increment::asks_for_changes(const FileEntry& previous) const {
  const auto relation = postgres::relation_file(previous.path);
  if (!relation || relation->fork != postgres::RelationFile::Fork::main || relation->temporary ||
      previous.size == 0 || previous.size % repository::page_bytes != 0) {
    return false;
  }
  const auto cut = cuts_.limit_of({relation->tablespace, relation->database, relation->relation});
  if (cut && *cut < (std::uint64_t{relation->segment} + 1) * segment_blocks_) return false;
  return hash_.hash64(base::view(backup_ + "/" + previous.path)) % samples_one_in != 0;
}

void Increment::write_manifest(const repository::Backups& backups,
                               postgres::ManifestWriter& writer) const {
  base::Decompressor decompressor;
  for (const repository::ShardReference& shard : baseline_.map.shards) {
    std::vector<FileEntry> files;
    try {
      files = backups.read_shard(shard.id, decompressor).files;
    } catch (const base::Error& error) {
      if (error.code() != base::Code::corrupt) throw;
      continue;  // they come whole
    }
    for (const FileEntry& file : files) {
      if (asks_for_changes(file)) writer.add(file.path, file.size);
    }
  }
  const BackupInfo& backup = baseline_.backup;
  writer.finish({backup.timeline, backup.start, backup.stop});
}

bool Increment::may_differ(Lsn page) const {
  return hints_differ_ && page < baseline_.backup.start;
}

std::string find_obstacle(const Baseline& baseline, postgres::Timeline timeline) {
  if (!baseline.distrust.empty()) return baseline.distrust;
  if (baseline.backup.timeline != timeline) return "the timeline has changed";
  return {};
}

std::string find_doubt(const Baseline& baseline, const repository::WalArchive& archive,
                       const std::string& connection, Lsn position, unsigned workers) {
  const BackupInfo& backup = baseline.backup;
  const postgres::SegmentSize size = backup.segment_size;
  const Segment end = postgres::segment_at(backup.timeline, {backup.stop.value - 1}, size);
  const Same same = compare_segment(archive, connection, end, size);
  if (same == Same::yes) return {};
  if (same == Same::no) return "the server has other WAL than was archived";
  // It has removed that. What it has of later WAL serves as well, if the archive leads there.
  const auto last = last_in_a_row(archive, end, size);
  if (last && last->number > end.number && postgres::end_of(*last, size) <= position) {
    const Same later = compare_segment(archive, connection, *last, size);
    if (later == Same::no) return "the server has other WAL than was archived";
    const Lsn begin = start_of(*last, size);
    // More than that takes longer than what it is to spare.
    const bool is_little =
        begin.value - backup.start.value <= std::max(backup.bytes / 8, 16 * size.bytes);
    if (later == Same::yes && is_little) {
      return changes_by_wal(baseline, archive, {}, begin, workers).why_not;
    }
  }
  return "nothing shows that the server was not set back to an earlier state since: it has removed "
         "the WAL of that time (a wal_keep_size of some segments helps)";
}

}  // namespace holdfast::operations
