#pragma once

// Which WAL an archive holds, and so how far a backup can be brought forward: complete segments,
// and what slices make of the ones that are not complete yet. Where a break is recorded, WAL ends
// as it does at a hole.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "operations/catalog.h"
#include "postgres/timeline_history.h"
#include "postgres/wal_reader.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// A view of one system's WAL archive at one moment: names and the sizes of slices only, no
/// contents but history files.
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

  /// For who has found that a segment, or a slice of it, cannot be read: from now on it is missing
  /// (TRAPS VE10).
  void forget(postgres::Segment segment);
  /// Is the complete segment there?
  bool has(postgres::Segment segment) const;
  /// The complete segment that replay on `history` reads for number `number`, if the archive has
  /// it.
  std::optional<postgres::Segment> segment_for(const postgres::TimelineHistory& history,
                                               std::uint64_t number) const;
  /// Going forward on `history` from the segment that holds `from`: where the first segment begins
  /// that is missing, or the slices end of one that is not complete, or the switch to a timeline is
  /// whose first segment is missing. `from` itself if nothing is there. Never over a break.
  postgres::Lsn contiguous_end(const postgres::TimelineHistory& history, postgres::Lsn from) const;
  /// The first break of `history` behind `from`: who comes from there must not read on.
  std::optional<postgres::Lsn> next_break(const postgres::TimelineHistory& history,
                                          postgres::Lsn from) const;
  bool breaks_at(const postgres::TimelineHistory& history, postgres::Lsn lsn) const;
  /// Is there any WAL of `history` in segments that begin at or behind `lsn`, or in slices behind a
  /// hole? If so, and `lsn` is a contiguous_end, then there is a hole at `lsn`.
  bool has_segment_behind(const postgres::TimelineHistory& history, postgres::Lsn lsn) const;
  /// Where the first segment begins, at or behind `lsn`, of which `history` has anything.
  std::optional<postgres::Lsn> next_segment(const postgres::TimelineHistory& history,
                                            postgres::Lsn lsn) const;
  /// Where the last segment begins of which `history` has anything.
  std::optional<postgres::Lsn> last_segment(const postgres::TimelineHistory& history) const;
  /// The timelines whose file may hold a part of segment `number` on `history`, the youngest first.
  std::vector<postgres::Timeline> timelines_in(const postgres::TimelineHistory& history,
                                               std::uint64_t number) const;
  bool empty() const { return segments_.empty(); }

  /// Spans of consecutive segments [first, last] of one timeline.
  struct Span {
    std::uint64_t first;
    std::uint64_t last;
  };
  const std::map<postgres::Timeline, std::vector<Span>>& spans() const { return segments_; }

  /// What slices hold of a segment that is not complete.
  struct Partial {
    postgres::Lsn end;  ///< contiguous from the segment's start
    bool hole = false;  ///< there are slices behind that
  };
  const std::map<postgres::Segment, Partial>& partials() const { return partials_; }

 private:
  void read_slices(const repository::WalArchive& archive, const std::string& timeline);
  bool is_on(const postgres::TimelineHistory& history, postgres::Segment segment) const;
  postgres::SegmentSize size_;
  std::map<postgres::Timeline, std::vector<Span>> segments_;
  std::map<postgres::Segment, Partial> partials_;
  std::map<postgres::Timeline, postgres::TimelineHistory> histories_;
  std::vector<postgres::Timeline> corrupt_histories_;
  std::vector<repository::Break> breaks_;
};

/// What replay on `history` would read for segment `number`: the complete one, or what slices hold
/// of it. nullopt if there is neither.
std::optional<base::Bytes> read_segment(const repository::WalArchive& archive,
                                        const WalCoverage& coverage,
                                        const postgres::TimelineHistory& history,
                                        std::uint64_t number);

/// Reads the records of `history` from the first one at or after `from`, segment by segment, and
/// calls `visit` with those that say when something ended (commits, aborts, restore points), until
/// it returns false or the WAL ends or breaks, or segment `last` has been read. Returns the end of
/// the last record read.
postgres::Lsn read_events(const repository::WalArchive& archive, const WalCoverage& coverage,
                          const postgres::TimelineHistory& history, postgres::Lsn from,
                          const std::function<bool(const postgres::WalEvent&)>& visit,
                          std::optional<std::uint64_t> last = {});

}  // namespace holdfast::operations
