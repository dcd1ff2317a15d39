#pragma once

// The step of a recovery that brings the world to the service again: by a command of the user's,
// and at Cloudflare: a new connector for the same tunnel, the tunnel's configuration, a DNS record,
// an origin of a load balancer.
//
// What was there before is in the journal before it is changed, so that it can be taken back, also
// by a later try.

#include "operations/recovery_context.h"

namespace holdfast::operations {

StepResult reconnect_edge(const RecoveryContext& context);
/// Everything that was changed is what it was. The old connector is its own host's business.
void undo_edge(const RecoveryContext& context);

/// For people.
std::string edge_plan(const EdgeSettings& edge);

}  // namespace holdfast::operations
