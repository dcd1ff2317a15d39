#pragma once

// Reads the secrets that [secrets] names, where they are now.

#include "operations/configuration.h"
#include "operations/secret_bundle.h"

namespace holdfast::operations {

/// Sorted by name, without fingerprints, versions and times. Throws Error(not_found) for a source
/// that is not there, Error(conflict) if two sources have a secret of the same name, and
/// Error(configuration) if there are no sources or something is said about no secret.
std::vector<Secret> read_secret_sources(const Configuration& configuration);

}  // namespace holdfast::operations
