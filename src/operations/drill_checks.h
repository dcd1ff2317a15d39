#pragma once

// What a drill looks at in a cluster that was brought back.
//
// A check says how much it looked at: nothing looked at is not passed (TRAPS VE5). What goes into
// the record names tables and counts, never values; what may hold values is in `details`, which
// stay on this machine.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/report.h"
#include "operations/evidence.h"
#include "operations/scratch_cluster.h"
#include "postgres/scratch_server.h"

namespace holdfast::operations {

struct Checked {
  EvidenceCheck check;
  std::vector<std::string> details;  ///< for whoever looks for the reason
};

/// Where recovery must have come to, by what the archive says.
struct TargetExpectation {
  postgres::Lsn at_least;
  std::optional<base::Timestamp> not_after;  ///< no later commit may have been replayed
};
TargetExpectation expect_target(const Site& site, const RestorePlan& plan);
/// Is that where it came to?
Checked check_target(const TargetExpectation& expected, const postgres::Recovered& recovered);

/// How long the costly checks may sample; nullopt: they look at everything.
using Budget = std::optional<std::chrono::milliseconds>;

Checked check_checksums(const ScratchCluster& cluster, Budget budget, unsigned workers,
                        base::Progress& progress);

/// The extension amcheck on tables and B-tree indexes of all databases.
Checked check_structures(ScratchCluster& cluster, Budget budget, unsigned workers,
                         base::Progress& progress);

/// A statement of the user's.
Checked check_assertion(ScratchCluster& cluster, const DrillAssertion& assertion);

/// Databases that can be connected to.
std::vector<std::string> databases_of(ScratchCluster& cluster);

}  // namespace holdfast::operations
