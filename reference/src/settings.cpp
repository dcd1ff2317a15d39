#include "settings.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include "log.h"

namespace reference {

namespace {

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

[[noreturn]] void refuse(std::string_view name, std::string_view wanted) {
  throw std::runtime_error(fmt::format("cannot understand {}: it must be {}", name, wanted));
}

std::optional<std::size_t> number(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::size_t count(const char* name, std::size_t usual) {
  const auto text = variable(name);
  if (!text) return usual;
  const auto value = number(*text);
  if (!value || *value < 1 || *value > 10000) refuse(name, "a number from 1 to 10000");
  return *value;
}

std::chrono::seconds duration(const char* name, std::chrono::seconds usual) {
  const auto text = variable(name);
  if (!text) return usual;
  const std::string_view units = "smhd";
  constexpr int seconds[] = {1, 60, 3600, 86400};
  const std::size_t unit = units.find(text->back());
  const auto value = number(std::string_view(*text).substr(0, text->size() - 1));
  if (unit == std::string_view::npos || !value || *value < 1 || *value > 100000) {
    refuse(name, "a duration such as 30s, 5m, 24h or 7d");
  }
  return std::chrono::seconds(static_cast<long>(*value) * seconds[unit]);
}

std::set<std::string> list(const char* name) {
  std::set<std::string> parts;
  std::string text = variable(name).value_or("");
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    if (end > at) parts.insert(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

void read_listen(Settings& settings) {
  const std::string text = variable("LISTEN").value_or("127.0.0.1:8080");
  const std::size_t colon = text.rfind(':');
  const auto port = colon == std::string::npos ? std::nullopt : number(text.substr(colon + 1));
  if (!port || *port > 65535 || colon == 0) refuse("LISTEN", "HOST:PORT");
  settings.host = text.substr(0, colon);
  settings.port = static_cast<int>(*port);
}

Settings::Break read_break() {
  Settings::Break broken;
  for (const std::string& name : list("REFERENCE_BREAK")) {
    if (name == "no-database-timeout") {
      broken.no_database_timeout = true;
    } else if (name == "cache-errors") {
      broken.cache_errors = true;
    } else if (name == "no-jwks-cache") {
      broken.no_jwks_cache = true;
    } else if (name == "ready-ignores-database") {
      broken.ready_ignores_database = true;
    } else {
      refuse("REFERENCE_BREAK",
             "a list of no-database-timeout, cache-errors, no-jwks-cache and "
             "ready-ignores-database");
    }
    log("warning: REFERENCE_BREAK={}: a promise is broken on purpose", name);
  }
  return broken;
}

}  // namespace

Settings settings_from_environment() {
  Settings settings;
  read_listen(settings);
  settings.database_url = variable("DATABASE_URL").value_or("");
  settings.database_connections = count("DATABASE_CONNECTIONS", settings.database_connections);
  settings.redis_url = variable("REDIS_URL").value_or("");
  settings.http_threads = count("HTTP_THREADS", settings.http_threads);
  settings.http_waiting = count("HTTP_WAITING", settings.http_waiting);
  settings.clerk_issuer = variable("CLERK_ISSUER").value_or("");
  settings.clerk_jwks_url = variable("CLERK_JWKS_URL").value_or("");
  settings.clerk_authorized_parties = list("CLERK_AUTHORIZED_PARTIES");
  settings.jwks_refresh = duration("JWKS_REFRESH", settings.jwks_refresh);
  settings.jwks_max_stale = duration("JWKS_MAX_STALE", settings.jwks_max_stale);
  settings.import_upload_dir = variable("IMPORT_UPLOAD_DIR").value_or("");
  settings.migrations = variable("MIGRATIONS").value_or(REFERENCE_MIGRATIONS);
  settings.broken = read_break();
  return settings;
}

}  // namespace reference
