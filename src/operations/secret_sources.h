#pragma once

// Reads the secrets that [secrets] names, where they are now.

#include <chrono>
#include <string>

#include "operations/configuration.h"
#include "operations/secret_bundle.h"

namespace holdfast::operations {

/// Sorted by name, without fingerprints, versions and times. Throws Error(not_found) for a source
/// that is not there, Error(conflict) if two sources have a secret of the same name, and
/// Error(configuration) if there are no sources or something is said about no secret.
std::vector<Secret> read_secret_sources(const Configuration& configuration);

/// What a command of [secrets.commands] prints. Throws Error(io) if it fails or does not end within
/// `limit`: then it was killed. What it prints to stderr stays unseen: it may be the secret.
std::string output_of_secret_command(const std::string& name, const std::string& command,
                                     std::chrono::seconds limit);

}  // namespace holdfast::operations
