#include "operations/wal_coverage.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::operations {

using postgres::Lsn;
using postgres::Segment;
using postgres::SegmentSize;
using postgres::Timeline;
using postgres::TimelineHistory;
using postgres::WalFileName;

WalCoverage::WalCoverage(const repository::WalArchive& archive, SegmentSize size) : size_(size) {
  for (const std::string& timeline : archive.timelines()) {
    for (const auto& file : archive.files(timeline)) {
      const auto name = postgres::parse_wal_file_name(file.name);
      if (!name || name->kind != WalFileName::Kind::segment) continue;
      const auto segment = name->segment(size);
      if (!segment) continue;
      auto& spans = segments_[segment->timeline];
      if (!spans.empty() && spans.back().last + 1 == segment->number) {
        spans.back().last = segment->number;
      } else {
        spans.push_back({segment->number, segment->number});
      }
    }
  }
  for (const std::string& file : archive.histories()) {
    const auto name = postgres::parse_wal_file_name(file);
    if (!name) continue;
    try {
      const auto bytes = archive.get(file);
      if (!bytes) continue;
      histories_.emplace(name->timeline, TimelineHistory(name->timeline, base::text(*bytes)));
    } catch (const base::Error& error) {
      if (error.code() != base::Code::corrupt) throw;
      corrupt_histories_.push_back(name->timeline);
    }
  }
}

std::vector<Timeline> WalCoverage::timelines() const {
  std::vector<Timeline> found{Timeline{1}};
  for (const auto& [timeline, spans] : segments_) found.push_back(timeline);
  for (const auto& [timeline, history] : histories_) found.push_back(timeline);
  found.insert(found.end(), corrupt_histories_.begin(), corrupt_histories_.end());
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::optional<TimelineHistory> WalCoverage::history(Timeline timeline) const {
  const auto found = histories_.find(timeline);
  if (found != histories_.end()) return found->second;
  if (timeline.value == 1) return TimelineHistory(timeline);
  return std::nullopt;
}

std::vector<Timeline> WalCoverage::missing_histories() const {
  std::vector<Timeline> missing;
  // Only timelines that somebody must have been on: those that left WAL, and the ancestors of those
  // that left a history. (A timeline number that a failed promotion skipped leaves neither.)
  std::vector<Timeline> needed = corrupt_histories_;
  for (const auto& [timeline, spans] : segments_) needed.push_back(timeline);
  for (const auto& [timeline, history] : histories_) {
    for (const TimelineHistory::Switch& each : history.switches()) needed.push_back(each.from);
  }
  std::sort(needed.begin(), needed.end());
  needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
  for (const Timeline timeline : needed) {
    if (timeline.value > 1 && !histories_.contains(timeline)) missing.push_back(timeline);
  }
  return missing;
}

void WalCoverage::forget(Segment segment) {
  const auto spans = segments_.find(segment.timeline);
  if (spans == segments_.end()) return;
  std::vector<Span> left;
  for (const Span& span : spans->second) {
    if (segment.number < span.first || segment.number > span.last) {
      left.push_back(span);
      continue;
    }
    if (span.first < segment.number) left.push_back({span.first, segment.number - 1});
    if (segment.number < span.last) left.push_back({segment.number + 1, span.last});
  }
  spans->second = std::move(left);
}

bool WalCoverage::has(Segment segment) const {
  const auto spans = segments_.find(segment.timeline);
  if (spans == segments_.end()) return false;
  const auto span =
      std::upper_bound(spans->second.begin(), spans->second.end(), segment.number,
                       [](std::uint64_t number, const Span& each) { return number < each.first; });
  return span != spans->second.begin() && segment.number <= std::prev(span)->last;
}

std::optional<Segment> WalCoverage::segment_for(const TimelineHistory& history,
                                                std::uint64_t number) const {
  // Like PostgreSQL (XLogFileReadAnyTLI): the youngest timeline first, then its ancestors. A
  // segment in which the timeline changed may exist on both; the younger file holds all of the
  // older one's part.
  const Segment youngest{history.timeline_of_segment(number, size_), number};
  if (has(youngest)) return youngest;
  const Segment oldest{history.timeline_at({number * size_.bytes}), number};
  if (has(oldest)) return oldest;
  return std::nullopt;
}

Lsn WalCoverage::contiguous_end(const TimelineHistory& history, Lsn from) const {
  std::uint64_t number = from.value / size_.bytes;
  for (;; ++number) {
    const auto segment = segment_for(history, number);
    const Lsn start{number * size_.bytes};
    if (!segment) return std::max(start, from);
    // The file of the timeline that was left is good up to where it was left.
    const auto left = history.end_of(segment->timeline);
    if (left && *left < postgres::end_of(*segment, size_) &&
        segment->timeline != history.timeline_of_segment(number, size_)) {
      return std::max(*left, from);
    }
  }
}

bool WalCoverage::has_segment_behind(const TimelineHistory& history, Lsn lsn) const {
  const std::uint64_t number = lsn.value / size_.bytes;
  for (const auto& [timeline, spans] : segments_) {
    if (!history.contains(timeline) || spans.empty()) continue;
    const auto end = history.end_of(timeline);
    // Segments of an ancestor behind the point where it was left belong to another history.
    const std::uint64_t last =
        end ? std::min(spans.back().last, (end->value - 1) / size_.bytes) : spans.back().last;
    if (last >= number) return true;
  }
  return false;
}

Lsn read_events(const repository::WalArchive& archive, const WalCoverage& coverage,
                const TimelineHistory& history, Lsn from,
                const std::function<bool(const postgres::WalEvent&)>& visit,
                std::optional<std::uint64_t> last) {
  postgres::WalReader reader(from, coverage.segment_size());
  const auto on_record = [&](const postgres::WalRecord& record) {
    const auto event = postgres::event_of(record);
    return !event || visit(*event);
  };
  for (std::uint64_t number = from.value / coverage.segment_size().bytes; !last || number <= *last;
       ++number) {
    const auto segment = coverage.segment_for(history, number);
    if (!segment) break;
    const std::string name = postgres::file_name(*segment, coverage.segment_size());
    const auto bytes = archive.get(name);
    if (!bytes)
      base::fail(base::Code::wal_missing, "WAL file {} was removed while it was read", name);
    if (!reader.feed(*bytes, on_record)) break;
  }
  return reader.end();
}

WalEnd find_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                    const TimelineHistory& history, Lsn from) {
  const std::uint64_t size = coverage.segment_size().bytes;
  const Lsn end = coverage.contiguous_end(history, from);
  WalEnd result{from, {}};
  if (end == from) return result;
  const std::uint64_t first = from.value / size;
  for (std::uint64_t number = end.value / size; number-- > first;) {
    const Lsn start = std::max(from, Lsn{number * size});
    const auto note_time = [&](const postgres::WalEvent& event) {
      if (event.kind != postgres::WalEvent::Kind::restore_point) {
        result.last_commit = std::max(result.last_commit.value_or(event.time), event.time);
      }
      return true;
    };
    // One segment more, for the record that continues there.
    const Lsn last = read_events(archive, coverage, history, start, note_time, number + 1);
    result.lsn = std::max(result.lsn, last);
    if (result.last_commit) break;
  }
  return result;
}

}  // namespace holdfast::operations
