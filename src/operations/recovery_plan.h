#pragma once

// What a recovery would do, and what going back would, in words: for people who are asked whether
// it shall be done. Nothing here touches anything.

#include <array>
#include <string>
#include <vector>

#include "operations/recovery_context.h"
#include "operations/recovery_obstacles.h"

namespace holdfast::operations {

struct PlannedStep {
  RecoveryStep step{};
  std::string action;  ///< what will be done; empty if nothing
  bool skipped = false;
  base::Microseconds limit{};
};
struct RecoveryPlan {
  std::vector<PlannedStep> steps;
  std::string target;               ///< what would be restored
  std::vector<Obstacle> obstacles;  ///< why it would not get through
};

/// Only of a lost host.
bool only_when_full(RecoveryStep step);

RecoveryPlan planned_steps(const RecoveryContext& context, const std::string& target);

/// Those that [recover.undo] takes back by commands, in their order.
inline constexpr std::array undone_by_commands = {RecoveryStep::reconnect, RecoveryStep::smoke,
                                                  RecoveryStep::proof, RecoveryStep::ready,
                                                  RecoveryStep::deploy};

/// What going back would do, in its order.
std::vector<std::string> undo_actions(const RecoveryContext& context);

/// Throws Error(refused) if it is undone already, or if the restored cluster serves, and the old
/// one could not: then going back would only be an outage.
void check_undo(const RecoveryContext& context);

}  // namespace holdfast::operations
