#pragma once

// What `status` knows from records: the RTO of the last drill, how old the last one that passed is,
// the last game day, and uptime from what probes found.
//
// What was not measured is said to be so, and is not held (TRAPS VE6).

#include "operations/status.h"

namespace holdfast::operations {

/// Three things can be wrong with drills, each without the others: none ever passed, the last pass
/// is too old, the newest one failed (TRAPS DS8). And records that somebody changed prove nothing.
void look_at_records(const Configuration& configuration, const std::string& cluster,
                     StatusReport& report);

/// The month so far, of each probe that is configured.
void look_at_uptime(const Configuration& configuration, StatusReport& report);

}  // namespace holdfast::operations
