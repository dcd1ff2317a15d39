#pragma once

// Timeline history files (timeline.c): which timeline left which one, and where.

#include <optional>
#include <string_view>
#include <vector>

#include "postgres/lsn.h"

namespace holdfast::postgres {

/// The way to one timeline: its ancestors from the oldest to the youngest.
class TimelineHistory {
 public:
  struct Switch {
    Timeline from;  ///< the ancestor
    Lsn at;         ///< where it was left: WAL from here on belongs to the next one
  };

  /// Timeline 1, or any other whose past is not known.
  explicit TimelineHistory(Timeline timeline) : timeline_(timeline) {}
  /// The content of TIMELINE.history; throws Error(corrupt) if it is not one (lines in falling or
  /// equal timeline order, LSNs that go backwards, an ancestor not below `timeline`).
  TimelineHistory(Timeline timeline, std::string_view text);

  Timeline timeline() const { return timeline_; }
  const std::vector<Switch>& switches() const { return switches_; }

  /// The timeline on which this history has the byte at `lsn`.
  Timeline timeline_at(Lsn lsn) const;
  bool contains(Timeline timeline) const;
  /// Where `timeline` was left on this history; nullopt for the last one, or one not in it.
  std::optional<Lsn> end_of(Timeline timeline) const;
  /// Is the position `lsn`, reached on `timeline`, on this history? True if `timeline` is the last
  /// one, or is in it and was left at or after `lsn`.
  bool passes(Timeline timeline, Lsn lsn) const;
  /// The timeline whose file replay must read for segment `number`: the youngest one that begins in
  /// it or before (XLogFileReadAnyTLI in xlogrecovery.c).
  Timeline timeline_of_segment(std::uint64_t number, SegmentSize size) const;

 private:
  Timeline timeline_;
  std::vector<Switch> switches_;
};

}  // namespace holdfast::postgres
