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

WalCoverage::WalCoverage(const repository::WalArchive& archive, SegmentSize size)
    : size_(size), breaks_(archive.gaps().breaks()) {
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
    read_slices(archive, timeline);
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

/// Of a segment that is complete, slices tell nothing.
void WalCoverage::read_slices(const repository::WalArchive& archive, const std::string& timeline) {
  const repository::WalSlices slices = archive.slices();
  for (const std::string& file : slices.segments(timeline)) {
    const auto name = postgres::parse_wal_file_name(file);
    if (!name || name->kind != WalFileName::Kind::segment) continue;
    const auto segment = name->segment(size_);
    if (!segment || has(*segment)) continue;
    const Lsn start = postgres::start_of(*segment, size_);
    const auto reach = slices.reach(file, start.value);
    if (reach.end == start.value && !reach.hole) continue;
    partials_[*segment] = {{std::min(reach.end, start.value + size_.bytes)}, reach.hole};
  }
}

std::vector<Timeline> WalCoverage::timelines() const {
  std::vector<Timeline> found{Timeline{1}};
  for (const auto& [timeline, spans] : segments_) found.push_back(timeline);
  for (const auto& [segment, partial] : partials_) found.push_back(segment.timeline);
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
  for (const auto& [segment, partial] : partials_) needed.push_back(segment.timeline);
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
  partials_.erase(segment);
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

std::vector<Timeline> WalCoverage::timelines_in(const TimelineHistory& history,
                                                std::uint64_t number) const {
  // Like PostgreSQL (XLogFileReadAnyTLI): the youngest timeline first, then its ancestors. A
  // segment in which the timeline changed may exist on several; the youngest file holds all of the
  // older ones' parts.
  const Timeline youngest = history.timeline_of_segment(number, size_);
  const Timeline oldest = history.timeline_at({number * size_.bytes});
  std::vector<Timeline> found{youngest};
  for (auto each = history.switches().rbegin(); each != history.switches().rend(); ++each) {
    if (each->from < youngest && each->from >= oldest) found.push_back(each->from);
  }
  return found;
}

std::optional<Segment> WalCoverage::segment_for(const TimelineHistory& history,
                                                std::uint64_t number) const {
  for (const Timeline timeline : timelines_in(history, number)) {
    if (has({timeline, number})) return Segment{timeline, number};
  }
  return std::nullopt;
}

std::optional<Lsn> WalCoverage::next_break(const TimelineHistory& history, Lsn from) const {
  std::optional<Lsn> next;
  for (const repository::Break& each : breaks_) {
    const Lsn at{each.at};
    // A history that left the timeline before has nothing of what came to be there.
    const auto left = history.end_of({each.timeline});
    if (at <= from || !history.contains({each.timeline}) || (left && *left <= at)) continue;
    next = std::min(next.value_or(at), at);
  }
  return next;
}

bool WalCoverage::breaks_at(const TimelineHistory& history, Lsn lsn) const {
  return lsn && next_break(history, {lsn.value - 1}) == lsn;
}

Lsn WalCoverage::contiguous_end(const TimelineHistory& history, Lsn from) const {
  const std::optional<Lsn> seam = next_break(history, from);
  for (std::uint64_t number = from.value / size_.bytes;; ++number) {
    const Lsn start{number * size_.bytes};
    const Lsn end{start.value + size_.bytes};
    Lsn reached = start;
    for (const Timeline timeline : timelines_in(history, number)) {
      // The file of a timeline that was left is good up to where it was left.
      const Lsn limit = std::min(end, history.end_of(timeline).value_or(end));
      const auto partial = partials_.find({timeline, number});
      if (has({timeline, number})) {
        reached = std::max(reached, limit);
      } else if (partial != partials_.end()) {
        reached = std::max(reached, std::min(limit, partial->second.end));
      }
    }
    if (seam && reached >= *seam) return *seam;
    if (reached < end) return std::max(reached, from);
  }
}

/// Segments of an ancestor behind the point where it was left belong to another history.
bool WalCoverage::is_on(const TimelineHistory& history, Segment segment) const {
  if (!history.contains(segment.timeline)) return false;
  const auto left = history.end_of(segment.timeline);
  return !left || postgres::start_of(segment, size_) < *left;
}

bool WalCoverage::has_segment_behind(const TimelineHistory& history, Lsn lsn) const {
  if (next_segment(history, lsn)) return true;
  // In the segment itself: what a hole between slices hides, unless a younger file stands for it.
  const std::uint64_t number = lsn.value / size_.bytes;
  for (const Timeline timeline : timelines_in(history, number)) {
    const auto partial = partials_.find({timeline, number});
    if (partial != partials_.end()) return partial->second.hole;
    if (has({timeline, number})) return false;
  }
  return false;
}

std::optional<Lsn> WalCoverage::next_segment(const TimelineHistory& history, Lsn lsn) const {
  const std::uint64_t number = (lsn.value + size_.bytes - 1) / size_.bytes;
  std::optional<std::uint64_t> first;
  const auto consider = [&](Segment segment) {
    if (segment.number < number || !is_on(history, segment)) return;
    first = std::min(first.value_or(segment.number), segment.number);
  };
  for (const auto& [timeline, spans] : segments_) {
    for (const Span& span : spans) {
      if (span.last < number) continue;
      consider({timeline, std::max(span.first, number)});
      break;
    }
  }
  for (const auto& [segment, partial] : partials_) consider(segment);
  if (!first) return std::nullopt;
  return Lsn{*first * size_.bytes};
}

std::optional<Lsn> WalCoverage::last_segment(const TimelineHistory& history) const {
  std::optional<std::uint64_t> last;
  const auto consider = [&](Segment segment) {
    if (is_on(history, segment)) last = std::max(last.value_or(0), segment.number);
  };
  for (const auto& [timeline, spans] : segments_) {
    const auto left = history.end_of(timeline);
    for (const Span& span : spans) {
      const std::uint64_t limit = left ? (left->value - 1) / size_.bytes : span.last;
      if (span.first <= limit) consider({timeline, std::min(span.last, limit)});
    }
  }
  for (const auto& [segment, partial] : partials_) consider(segment);
  if (!last) return std::nullopt;
  return Lsn{*last * size_.bytes};
}

std::optional<base::Bytes> read_segment(const repository::WalArchive& archive,
                                        const WalCoverage& coverage, const TimelineHistory& history,
                                        std::uint64_t number) {
  const SegmentSize size = coverage.segment_size();
  for (const Timeline timeline : coverage.timelines_in(history, number)) {
    const Segment segment{timeline, number};
    const std::string name = postgres::file_name(segment, size);
    const bool partial = coverage.partials().contains(segment);
    if (!partial && !coverage.has(segment)) continue;
    // It may have become complete since the names were read; then its slices are gone.
    if (auto bytes = archive.get(name)) return bytes;
    if (partial) {
      return archive.slices().assemble(name, postgres::start_of(segment, size).value).bytes;
    }
    base::fail(base::Code::wal_missing, "WAL file {} was removed while it was read", name);
  }
  return std::nullopt;
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
  const auto seam =
      coverage.breaks_at(history, from) ? std::optional(from) : coverage.next_break(history, from);
  for (std::uint64_t number = from.value / coverage.segment_size().bytes; !last || number <= *last;
       ++number) {
    if (seam && number * coverage.segment_size().bytes >= seam->value) break;
    const auto bytes = read_segment(archive, coverage, history, number);
    if (!bytes || !reader.feed(*bytes, on_record)) break;
    if (bytes->size() < coverage.segment_size().bytes) break;
  }
  return reader.end();
}

}  // namespace holdfast::operations
