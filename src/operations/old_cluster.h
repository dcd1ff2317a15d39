#pragma once

// The cluster that a recovery replaces: made sure that nobody writes to it any more, put aside for
// looking at it later, and brought back if the recovery is undone.
//
// One that is here is stopped, and its directory renamed: then nothing starts it again by itself,
// and the restored cluster can have its place. One that is elsewhere only a command of the user's
// can fence; without one it must at least not answer.

#include "operations/recovery_context.h"
#include "operations/recovery_start.h"

namespace holdfast::operations {

/// Where the old cluster is, or was: data_directory, or where it leads if it is a link. Empty: not
/// on this machine.
base::fs::path old_place_of(const ClusterConfiguration& cluster);

/// Throws Error(refused) if the old cluster still answers, with the way out.
StepResult fence_old_cluster(const RecoveryContext& context);

/// What fencing would do, for people.
std::string fencing_plan(const RecoveryContext& context);

/// The old cluster is where it was: not yet put aside, or brought back.
bool old_cluster_is_in_place(const RecoveryContext& context);

/// What of the old cluster, as far as it is on this machine, keeps a server from starting on it;
/// empty: nothing that is known.
std::string why_it_cannot_start(const RecoveryContext& context);

/// Puts the restored cluster aside, and the old one back where it was; does not start it.
void bring_old_cluster_back(const RecoveryContext& context);

}  // namespace holdfast::operations
