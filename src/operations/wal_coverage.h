#pragma once

// Which WAL an archive holds, and so how far a backup can be brought forward.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "operations/catalog.h"
#include "postgres/timeline_history.h"
#include "postgres/wal_reader.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// A view of one system's WAL archive at one moment: names only, no contents but history files.
class WalCoverage {
 public:
  WalCoverage(const repository::WalArchive& archive, postgres::SegmentSize size);

  postgres::SegmentSize segment_size() const { return size_; }

  /// Timelines that have segments or a history file, rising; at least timeline 1.
  std::vector<postgres::Timeline> timelines() const;
  /// The history of a timeline: of timeline 1 always; of another one only if its file is there.
  std::optional<postgres::TimelineHistory> history(postgres::Timeline timeline) const;
  /// Timelines above 1, up to the highest that left any trace, whose history file is missing.
  /// Finding the newest timeline must not end at such a hole (pitfall B32, TRAPS WF2).
  std::vector<postgres::Timeline> missing_histories() const;

  /// Timelines whose history file is there but cannot be read. They count as missing ones, too.
  const std::vector<postgres::Timeline>& corrupt_histories() const { return corrupt_histories_; }

  /// For who has found that a segment cannot be read: from now on it is missing (TRAPS VE10).
  void forget(postgres::Segment segment);
  bool has(postgres::Segment segment) const;
  /// The segment that replay on `history` reads for number `number`, if the archive has it.
  std::optional<postgres::Segment> segment_for(const postgres::TimelineHistory& history,
                                               std::uint64_t number) const;
  /// Going forward on `history` from the segment that holds `from`: the start of the first segment
  /// that is missing, or the switch to a timeline whose first segment is missing. `from` itself if
  /// nothing is there.
  postgres::Lsn contiguous_end(const postgres::TimelineHistory& history, postgres::Lsn from) const;
  /// Is there any segment of `history` at or behind `lsn`? If so, and `lsn` is a contiguous_end,
  /// then there is a hole at `lsn`.
  bool has_segment_behind(const postgres::TimelineHistory& history, postgres::Lsn lsn) const;
  bool empty() const { return segments_.empty(); }

  /// Spans of consecutive segments [first, last] of one timeline.
  struct Span {
    std::uint64_t first;
    std::uint64_t last;
  };
  const std::map<postgres::Timeline, std::vector<Span>>& spans() const { return segments_; }

 private:
  postgres::SegmentSize size_;
  std::map<postgres::Timeline, std::vector<Span>> segments_;
  std::map<postgres::Timeline, postgres::TimelineHistory> histories_;
  std::vector<postgres::Timeline> corrupt_histories_;
};

/// Reads the records of `history` from the first one at or after `from`, segment by segment, and
/// calls `visit` with those that say when something ended (commits, aborts, restore points), until
/// it returns false or the WAL ends, or segment `last` has been read. Returns the end of the last
/// record read.
postgres::Lsn read_events(const repository::WalArchive& archive, const WalCoverage& coverage,
                          const postgres::TimelineHistory& history, postgres::Lsn from,
                          const std::function<bool(const postgres::WalEvent&)>& visit,
                          std::optional<std::uint64_t> last = {});

/// Where the WAL of `history` that follows gaplessly on `from` ends.
struct WalEnd {
  postgres::Lsn lsn;  ///< end of the last record
  std::optional<base::Timestamp>
      last_commit;  ///< the latest commit or abort time up to there, if any
};
/// Looks back from the end, segment by segment, for the last commit; not further than `from`.
WalEnd find_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                    const postgres::TimelineHistory& history, postgres::Lsn from);

}  // namespace holdfast::operations
