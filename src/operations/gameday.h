#pragma once

// `gameday`: break each dependency of a service on purpose, and hold the service to its contract.
//
// Each row of the contract in turn: baseline (nothing is broken: what is asked is answered as
// usual, or the row proves nothing), inject, observe (every request of the row again and again, all
// at the same time), heal, recovery (until all is answered as usual, without a restart).
//
// Nothing stays broken: the fault proxies heal when we are done, when we fail, and by their own
// watch when we are killed (service/fault_injector.h). The verdict is as a drill's: `fail` if a
// promise was broken, `inconclusive` if a row could not be tried, `pass` otherwise. The record is
// one of the chain that drills write.

#include <string>

#include "base/report.h"
#include "operations/configuration.h"
#include "operations/contract.h"
#include "operations/evidence.h"

namespace holdfast::operations {

struct GamedayRequest {
  std::vector<std::string> rows;  ///< names; empty: all of them
  std::string completed_by;
};

struct GamedayOutcome {
  Evidence evidence;
  EvidenceFiles files;
  std::vector<std::string> details;  ///< of what failed; may hold values
  base::fs::path log;                ///< what the service said; empty: it was not started here
};

/// Throws only if nothing could be begun or recorded: unknown rows, no fault proxy and no service
/// of our own to start one for, a signing key that is not the one of the records; or Error
/// (interrupted), with everything healed.
GamedayOutcome run_gameday(const Configuration& configuration, const std::string& cluster,
                           const Contract& contract, const GamedayRequest& request,
                           base::Progress& progress);

}  // namespace holdfast::operations
