#pragma once

// The record of a recovery: what an incident's page needs, signed and chained like a drill's.

#include "operations/recovery_context.h"
#include "operations/secrets.h"

namespace holdfast::operations {

/// Adds it to the records; fills in `evidence`.
EvidenceFiles record_recovery(const RecoveryContext& context, Evidence& evidence);

/// Which of the service's secrets to change now; empty if none are sealed.
std::vector<Rotation> rotation_after(const RecoveryContext& context);

}  // namespace holdfast::operations
