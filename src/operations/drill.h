#pragma once

// `drill`: bring a cluster back somewhere, start it, look at it closely, time it, record it, and
// throw it away.
//
// The steps: select (which backup, and to where), restore (files), replay (until the server has
// recovered and answers), checks, ready (the user's own service, if one is configured), teardown.
// Each is timed by a monotonic clock. What a recovery would have taken is the sum of all but
// teardown; teardown that fails is a failure all the same (TRAPS VE17).
//
// The verdict is one of three. `fail`: what was brought back is not what it should be, or it could
// not be brought back. `inconclusive`: something that has nothing to do with the backup kept the
// drill or one of its checks from being done (no PostgreSQL of that version, no room, no time):
// never a pass (TRAPS VE1, VE3). Every drill leaves a record, those that fail above all. Of those
// the server's log and the list of what was found stay in a directory that the record names.

#include <chrono>
#include <optional>
#include <string>

#include "base/report.h"
#include "operations/configuration.h"
#include "operations/evidence.h"

namespace holdfast::operations {

struct DrillRequest {
  std::string to = "latest";
  bool random = false;  ///< any moment of the recovery window, all equally likely
  std::optional<std::string> backup;
  std::string system;  ///< empty: the one that is meant (systems.h)
  bool full = false;   ///< the costly checks look at everything
  bool keep = false;   ///< the restored files stay
  std::string completed_by;
  std::chrono::seconds limit = std::chrono::hours(4);  ///< for recovery to reach its target
  unsigned workers = 1;
};

struct DrillOutcome {
  Evidence evidence;
  EvidenceFiles files;
  std::vector<std::string> details;  ///< of what failed; may hold values
  base::fs::path remains;            ///< what stayed; empty: nothing
  std::vector<std::string> gaps;     ///< what the kernel does not hold the scratch server back from
  std::vector<std::string> refused;  ///< what that server tried and was refused; may hold values
};

/// Throws only if nothing could be begun or recorded: a request that makes no sense, a signing key
/// that is not the one of the records.
DrillOutcome run_drill(const Configuration& configuration, const std::string& cluster,
                       const DrillRequest& request, base::Progress& progress);

}  // namespace holdfast::operations
