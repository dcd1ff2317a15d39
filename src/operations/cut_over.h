#pragma once

// The steps of a recovery that bring the service over to the restored cluster, and back.

#include "operations/recovery_context.h"

namespace holdfast::operations {

/// The sealed bundle, opened into the environment file. What is there and differs is not replaced.
StepResult restore_secrets_of_service(const RecoveryContext& context);

/// What was taken along with backups, each set where it was. What is there already stays.
StepResult restore_files_of_service(const RecoveryContext& context);

/// DATABASE_URL in the environment file leads to the restored cluster; the file as it was is kept.
StepResult write_environment(const RecoveryContext& context);
/// Makes the file what it was, if it was changed.
void undo_environment(const RecoveryContext& context);

/// Makes the service anew: compose, a unit of systemd, or a command.
StepResult deploy_service(const RecoveryContext& context);
StepResult await_ready(const RecoveryContext& context);

/// Is it the restored cluster that the service works on? Asked of the service, whose answer must
/// name the system, the timeline, and a position at or behind where that timeline begins; or, where
/// it tells nothing, of the cluster: is somebody there.
StepResult prove_cut_over(const RecoveryContext& context);

StepResult pass_smoke(const RecoveryContext& context);

}  // namespace holdfast::operations
