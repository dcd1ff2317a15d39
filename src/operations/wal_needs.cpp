#include "operations/wal_needs.h"

#include <algorithm>

namespace holdfast::operations {

using postgres::Segment;
using postgres::TimelineHistory;

WalNeeds::WalNeeds(const WalCoverage& coverage, std::vector<BackupInfo> onward,
                   std::vector<BackupInfo> own)
    : size_(coverage.segment_size()), onward_(std::move(onward)), own_(std::move(own)) {
  for (const postgres::Timeline timeline : coverage.timelines()) {
    if (auto history = coverage.history(timeline)) histories_.push_back(*std::move(history));
  }
}

/// Does replay on `history` read this segment? The last one of a timeline that was left may exist
/// under both names; both are kept.
bool WalNeeds::is_on_way(const TimelineHistory& history, Segment segment) const {
  if (segment.timeline == history.timeline()) return true;
  const auto end = history.end_of(segment.timeline);
  return end && postgres::start_of(segment, size_) <= *end;
}

bool WalNeeds::leads_to(const BackupInfo& backup, Segment segment) const {
  return std::ranges::any_of(histories_, [&](const TimelineHistory& history) {
    return history.passes(backup.timeline, backup.stop) && is_on_way(history, segment);
  });
}

bool WalNeeds::needs(Segment segment) const {
  const auto first_of = [&](const BackupInfo& backup) {
    return postgres::segment_at(backup.timeline, backup.start, size_).number;
  };
  const bool onward = std::ranges::any_of(onward_, [&](const BackupInfo& backup) {
    return segment.number >= first_of(backup) && leads_to(backup, segment);
  });
  return onward || std::ranges::any_of(own_, [&](const BackupInfo& backup) {
           // A segment of any timeline from which that of the backup came: more than enough.
           const std::uint64_t last = (backup.stop.value - 1) / size_.bytes;
           return segment.number >= first_of(backup) && segment.number <= last &&
                  leads_to(backup, segment);
         });
}

}  // namespace holdfast::operations
