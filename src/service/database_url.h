#pragma once

// DATABASE_URL: how a service reaches its database (libpq's connection URIs, "34.1.1.2" of the
// PostgreSQL manual).
//
// After a recovery only the place differs: user, password, database and all other parameters stay
// byte for byte as they were, escapes included.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::service {

/// A URL, "postgres://..." or "postgresql://...", that leads to this host and port. Hosts and ports
/// among its parameters go, as they would count before those in front. `host` may be a directory of
/// sockets. Without a port it is 5432. Throws Error(configuration), without the URL, for what is no
/// such URL.
std::string with_database_host(const std::string& url, const std::string& host,
                               std::optional<std::uint16_t> port);

/// The password in it, as it is written and as it is meant (without escapes), for crossing it out;
/// empty if there is none.
std::vector<std::string> database_passwords(const std::string& url);

}  // namespace holdfast::service
