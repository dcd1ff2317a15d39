#pragma once

// What the environment says. Read once at the start; throws std::runtime_error that names the
// variable if something in it cannot be meant.

#include <chrono>
#include <cstddef>
#include <set>
#include <string>

namespace reference {

struct Settings {
  std::string host;  ///< LISTEN=HOST:PORT, default 127.0.0.1:8080; port 0: any free one
  int port = 0;
  std::string database_url;               ///< DATABASE_URL
  std::size_t database_connections = 16;  ///< DATABASE_CONNECTIONS
  std::string redis_url;                  ///< REDIS_URL; empty: no cache
  std::size_t http_threads = 128;         ///< HTTP_THREADS: connections served at once
  std::size_t http_waiting = 128;         ///< HTTP_WAITING: connections that may wait

  std::string clerk_issuer;                        ///< CLERK_ISSUER
  std::string clerk_jwks_url;                      ///< CLERK_JWKS_URL
  std::set<std::string> clerk_authorized_parties;  ///< CLERK_AUTHORIZED_PARTIES, with commas
  std::chrono::seconds jwks_refresh{300};          ///< JWKS_REFRESH: "5m"
  std::chrono::seconds jwks_max_stale{86400};      ///< JWKS_MAX_STALE: "24h"
  std::string import_upload_dir;                   ///< IMPORT_UPLOAD_DIR

  std::string migrations;  ///< MIGRATIONS: their directory; default: in the source tree

  /// REFERENCE_BREAK: promises broken on purpose, so that a game day can be shown to fail.
  struct Break {
    bool no_database_timeout = false;
    bool cache_errors = false;
    bool no_jwks_cache = false;
    bool ready_ignores_database = false;
  } broken;
};

Settings settings_from_environment();

}  // namespace reference
