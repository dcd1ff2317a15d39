#pragma once

// The cluster that a recovery replaces: made sure that nobody writes to it any more, put aside for
// looking at it later, and brought back if the recovery is undone.
//
// One that is here is stopped, and its directory renamed: then nothing starts it again by itself,
// and the restored cluster can have its place. One that is elsewhere only a command of the user's
// can fence; without one it must at least not answer.

#include "operations/recovery_context.h"

namespace holdfast::operations {

/// The process of the server that runs on a data directory: it is named there, and works there.
std::optional<pid_t> server_process(const base::fs::path& data_directory);

/// SIGINT (a fast shutdown), and SIGQUIT if that takes too long. Throws Error(busy) if the server
/// does not end within the limit.
void stop_server(const base::fs::path& data_directory, base::Microseconds limit);

/// Throws Error(refused) if the old cluster still answers, with the way out.
StepResult fence_old_cluster(const RecoveryContext& context);

/// What fencing would do, for people.
std::string fencing_plan(const RecoveryContext& context);

/// Puts the restored cluster aside, and the old one back where it was; does not start it.
void bring_old_cluster_back(const RecoveryContext& context);

}  // namespace holdfast::operations
