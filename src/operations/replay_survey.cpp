#include "operations/replay_survey.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/workers.h"
#include "operations/wal_coverage.h"
#include "postgres/wal_body.h"

namespace holdfast::operations {

namespace {

using postgres::Lsn;
using postgres::WalEvent;
using postgres::WalRecord;
using Kind = RecoveryTarget::Kind;

/// So many segments are read in one go by one worker.
constexpr std::uint64_t chunk_segments = 16;

/// What one worker found in consecutive segments.
struct Chunk {
  std::vector<postgres::TablespaceRecord> tablespaces;
  postgres::ServerLimits limits;
  Lsn first_previous;  ///< the record before its first one, as that says
  Lsn last;            ///< where its last one begins
  Lsn end;             ///< of the last one
  bool at_target = false;
  bool ended = false;  ///< nothing that follows can be replayed
  std::uint64_t bytes = 0;
};

class Surveyor {
 public:
  Surveyor(const Site& site, const RestorePlan& plan)
      : plan_(plan),
        archive_(site.repository, plan.backup.place),
        coverage_(archive_, plan.backup.segment_size),
        size_(plan.backup.segment_size),
        end_(coverage_.contiguous_end(plan.history, plan.backup.start)) {}

  ReplaySurvey run(unsigned workers) {
    const std::uint64_t first = plan_.backup.start.value / size_.bytes;
    const std::uint64_t last = std::max(end_.value, plan_.backup.start.value + 1) - 1;
    std::vector<Chunk> chunks((last / size_.bytes - first) / chunk_segments + 1);
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> enough{chunks.size()};
    const auto count = static_cast<unsigned>(std::min<std::size_t>(workers, chunks.size()));
    base::run_workers(count, [&](unsigned, const std::stop_token& stop) {
      for (std::size_t i = 0; (i = next++) < enough && !stop.stop_requested();) {
        read(first + i * chunk_segments, chunks[i]);
        if (!chunks[i].ended) continue;
        for (std::size_t now = enough; i + 1 < now && !enough.compare_exchange_weak(now, i + 1);) {
        }
      }
    });
    chunks.resize(enough);
    return join(chunks);
  }

 private:
  /// Reads the records that begin in the segments from `number` on, as far as the chunk goes.
  void read(std::uint64_t number, Chunk& chunk) const {
    const Lsn begin = std::max(plan_.backup.start, Lsn{number * size_.bytes});
    const Lsn behind{(number + chunk_segments) * size_.bytes};
    postgres::WalReader reader(begin, size_);
    bool complete = false;
    const auto visit = [&](const WalRecord& record) {
      if (!chunk.first_previous) chunk.first_previous = record.previous;
      complete = record.start >= behind;
      if (complete) return false;
      if (stops_before(record)) {
        chunk.at_target = true;
        return false;
      }
      chunk.last = record.start;
      chunk.end = record.end;
      note(record, chunk);
      chunk.at_target = stops_after(record);
      return !chunk.at_target;
    };
    while (!complete && !chunk.ended) {
      base::stop_if_interrupted();
      const auto bytes = number * size_.bytes < end_.value
                             ? read_segment(archive_, coverage_, plan_.history, number)
                             : std::nullopt;
      const bool goes_on = bytes && reader.feed(*bytes, visit);
      if (bytes) chunk.bytes += bytes->size();
      chunk.ended = chunk.at_target || (!complete && !goes_on) ||
                    (bytes && !complete && bytes->size() < size_.bytes);
      ++number;
    }
  }

  static void note(const WalRecord& record, Chunk& chunk) {
    if (const auto limits = postgres::limits_of(record)) chunk.limits.raise_to(*limits);
    if (auto tablespace = postgres::tablespace_record_of(record)) {
      chunk.tablespaces.push_back(*std::move(tablespace));
    }
  }

  bool has_target() const { return !plan_.replay_everything && plan_.target.kind != Kind::latest; }

  /// As recoveryStopsBefore in xlogrecovery.c.
  bool stops_before(const WalRecord& record) const {
    if (!has_target() || record.start < plan_.backup.stop) return false;
    const RecoveryTarget& target = plan_.target;
    if (target.kind == Kind::immediate) return true;
    if (target.kind == Kind::lsn) return !target.inclusive && record.start >= target.lsn;
    if (target.kind == Kind::name) return false;
    if (record.resource_manager != postgres::resource_manager::transaction) return false;
    const auto event = postgres::event_of(record);
    if (!event || event->kind == WalEvent::Kind::restore_point) return false;
    if (target.kind == Kind::transaction) {
      return !target.inclusive && event->transaction == target.transaction;
    }
    return target.inclusive ? event->time > target.time : event->time >= target.time;
  }

  /// As recoveryStopsAfter.
  bool stops_after(const WalRecord& record) const {
    if (!has_target() || record.start < plan_.backup.stop) return false;
    const RecoveryTarget& target = plan_.target;
    if (target.kind == Kind::lsn) return target.inclusive && record.start >= target.lsn;
    if (target.kind != Kind::name && target.kind != Kind::transaction) return false;
    const auto event = postgres::event_of(record);
    if (!event) return false;
    if (event->kind == WalEvent::Kind::restore_point) {
      return target.kind == Kind::name && event->name == target.name;
    }
    return target.kind == Kind::transaction && event->transaction == target.transaction;
  }

  ReplaySurvey join(std::vector<Chunk>& chunks) const {
    ReplaySurvey result;
    result.end = plan_.backup.start;
    Lsn last;
    for (Chunk& chunk : chunks) {
      result.read_bytes += chunk.bytes;
      // Replay would end at a record that does not name the one before it.
      if (last && chunk.first_previous && chunk.first_previous != last) break;
      result.limits.raise_to(chunk.limits);
      std::ranges::move(chunk.tablespaces, std::back_inserter(result.tablespaces));
      if (chunk.last) last = chunk.last;
      result.end = std::max(result.end, chunk.end);
      result.reached_target = chunk.at_target;
      if (chunk.ended) break;
    }
    return result;
  }

  const RestorePlan& plan_;
  repository::WalArchive archive_;
  WalCoverage coverage_;
  postgres::SegmentSize size_;
  Lsn end_;  ///< of what the archive has without a gap
};

}  // namespace

ReplaySurvey survey_replay(const Site& site, const RestorePlan& plan,
                           const repository::BackupMap& map, unsigned workers) {
  ReplaySurvey result = Surveyor(site, plan).run(workers);
  const repository::Attachment* control = map.attachment("pg_control");
  if (control == nullptr) base::fail(base::Code::corrupt, "the backup's map holds no pg_control");
  result.limits.raise_to(postgres::limits_in_control_file(control->content));
  return result;
}

}  // namespace holdfast::operations
