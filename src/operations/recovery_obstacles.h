#pragma once

// What would keep a recovery from getting through, found before anything is touched: production is
// not stopped for something that fails half-way.

#include <string>
#include <vector>

#include "base/error.h"
#include "operations/recovery_context.h"
#include "operations/restore_plan.h"

namespace holdfast::operations {

struct Obstacle {
  base::Code code{};
  std::string what;  ///< in one line, with the name of what is in the way
  std::string hint;
};

/// Looks only. Space where files, tablespaces and WAL will be; the old directory and the right to
/// rename it; the way to the server; what later steps name: programs, files, identities.
std::vector<Obstacle> find_obstacles(const RecoveryContext& context, const Site& site,
                                     const RestorePlan& plan);

/// Throws an Error that names all of them; returns if there are none.
void refuse_for(const std::vector<Obstacle>& obstacles);

}  // namespace holdfast::operations
