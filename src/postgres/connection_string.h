#pragma once

// libpq connection strings, as users write them.

#include <string>
#include <utility>
#include <vector>

namespace holdfast::postgres {

/// What a connection string says, for a program of PostgreSQL's: the environment that means the
/// same, so that no password is seen in `ps`. Throws Error(configuration) for a malformed string,
/// or for a keyword that has no variable.
std::vector<std::pair<std::string, std::string>> connection_environment(
    const std::string& connection);

/// Does it hold what libpq would use as a password, in whatever way it is written? One that libpq
/// cannot parse may.
bool holds_secret(const std::string& connection);

}  // namespace holdfast::postgres
