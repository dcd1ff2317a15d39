#pragma once

// `recover`: the runbook of a disaster, step by step, until the service serves again.
//
// The steps are those of RecoveryStep. Each is written down before and after (recovery_journal.h),
// has a time limit, and can be a command of the user's. One that fails ends the work and says how
// to go on or back; a recovery that was killed goes on where it was. Before anything is touched it
// is known that there is a backup that can be restored.
//
// When it ends, it becomes a record in the chain of drills: what was done, by whom, how long each
// step took, and the RPO and RTO that were measured, against what is promised. A recovery that is
// undone is recorded, too.

#include <string>
#include <vector>

#include "operations/recovery_context.h"
#include "operations/recovery_plan.h"
#include "operations/secrets.h"

namespace holdfast::operations {

struct RecoverRequest {
  RestoreRequest restore;
  bool full = false;  ///< the host is lost: provision, secrets and files as well
  std::optional<bool> instant;
  base::fs::path identity;  ///< opens the sealed secrets
  std::string completed_by;
};

/// Touches nothing. Throws if there is nothing that can be restored, or if something is missing
/// that a later step will need.
RecoveryPlan plan_recovery(const std::vector<Configuration>& repositories,
                           const std::string& cluster, const RecoverRequest& request);
/// What is left of the last one. Touches nothing; throws what resume_recovery() would.
RecoveryPlan plan_resume(const std::vector<Configuration>& repositories, const std::string& cluster,
                         const std::vector<RecoveryStep>& skip);

struct UndoPlan {
  std::string recovery;
  std::vector<std::string> actions;
};
/// Touches nothing; throws what undo_recovery() would refuse.
UndoPlan plan_undo(const std::vector<Configuration>& repositories, const std::string& cluster);

struct RecoverOutcome {
  Recovery recovery;
  Evidence evidence;
  EvidenceFiles files;
  std::vector<Rotation> rotation;  ///< what to do about secrets now
  std::vector<std::string> notes;
};

/// Called when a step begins and when it has ended.
using ShowStep = std::function<void(const StepRecord&)>;

/// How the work is done, whichever it is.
struct RecoverWork {
  const std::vector<Configuration>& repositories;
  std::string cluster;
  unsigned workers = 1;
  ShowStep show;
};

/// Throws the error of the step that failed.
RecoverOutcome recover(const RecoverWork& work, const RecoverRequest& request,
                       base::Progress& progress);
/// Goes on with the last one; `skip`: steps that shall not be done, which the record tells;
/// `identity`: instead of the one that it began with, unless empty.
RecoverOutcome resume_recovery(const RecoverWork& work, const std::vector<RecoveryStep>& skip,
                               const base::fs::path& identity, base::Progress& progress);
/// Takes back the last one, ended or not: the old cluster is where it was, and serves if it did.
/// The restored one is put aside. Throws Error(refused) if the restored one serves and the old one
/// could not.
RecoverOutcome undo_recovery(const RecoverWork& work, base::Progress& progress);

}  // namespace holdfast::operations
