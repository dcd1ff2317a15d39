#pragma once

// `events`: what happened in a span of time, as the archived WAL tells it, so that somebody who
// dropped a table finds the moment before.
//
// Names are those that backups carry; a table that was made after the last backup is a number.
// Holes in the WAL and segments that cannot be read are said, and what lies between them is told.

#include <string>
#include <vector>

#include "operations/recovery_window.h"
#include "operations/wal_story.h"

namespace holdfast::operations {

struct EventsRequest {
  std::string since;     ///< a time, or how long ago: "2h"
  std::string until;     ///< likewise; empty: the end of WAL
  std::string system{};  ///< empty: the one that is meant (systems.h)
};

/// What was committed in one minute. Rows are those of tables that are not the system's.
struct EventMinute {
  base::Timestamp start;
  std::uint64_t commits = 0;
  std::uint64_t aborts = 0;
  RowCounts rows;
};

struct EventReport {
  std::string system_id;
  postgres::Timeline timeline;
  base::Timestamp since;
  base::Timestamp until;
  std::vector<EventMinute> minutes;  ///< those in which something ended
  std::vector<Event> events;         ///< by LSN
  std::vector<std::string> warnings;
};

/// Follows the newest timeline of one system. Throws Error(not_found) if there is no WAL of
/// that time.
EventReport find_events(const Site& site, const EventsRequest& request);

}  // namespace holdfast::operations
