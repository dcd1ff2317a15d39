// reference-api: the service, its migrations, and a list of its routes.

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "auth/token_verifier.h"
#include "database/migrations.h"
#include "exports/routes.h"
#include "http/problem.h"
#include "http/server.h"
#include "imports/routes.h"
#include "imports/worker.h"
#include "log.h"
#include "resources/report_result.h"
#include "resources/rest.h"
#include "settings.h"

namespace reference {
namespace {

constexpr const char* usage =
    "usage: reference-api            serves, as the environment says (README.md)\n"
    "       reference-api --migrate  brings the schema of DATABASE_URL up to date\n"
    "       reference-api --routes   lists what is served: method, path, role\n";

/// The verifier of --routes, which asks nobody.
class NoVerifier : public auth::Verifier {
 public:
  auth::Principal verify(std::string_view /*bearer_token*/) override {
    throw http::Problem(401, "no_token", "cannot verify anything");
  }
};

/// Which cluster this is, and how far: after a recovery somebody must be able to prove that it is
/// the restored one. It is no secret, and tells nothing of what is in it.
std::string identity_of(database::Pool& pool) {
  const database::Rows rows =
      pool.session(std::chrono::seconds(1))
          .run(
              "SELECT json_build_object('system_identifier', system_identifier::text, 'timeline', "
              "CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM "
              "pg_control_checkpoint()) "
              "ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int "
              "END, "
              "'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
              "ELSE pg_current_wal_lsn() END)::text FROM pg_control_system()");
  return std::string(rows.text(0, 0));
}

void register_state(http::Router& router, database::Pool& pool, cache::Cache& cache,
                    const Settings& settings) {
  const auto ok = [](std::string body) {
    http::Response response;
    response.body = std::move(body);
    return response;
  };
  router.add_open("GET", "/health", [ok](http::Request&) { return ok(R"({"status":"ok"})"); });
  const bool asks = !settings.broken.ready_ignores_database;
  router.add_open("GET", "/ready", [&pool, &cache, ok, asks](http::Request&) {
    const std::string database = asks ? identity_of(pool) : "null";
    return ok(
        fmt::format(R"({{"status":"ready","cache":{},"database":{}}})", cache.working(), database));
  });
}

void register_all(http::Router& router, database::Pool& pool, cache::Cache& cache,
                  const Settings& settings, const std::function<void()>& wake_importer) {
  register_state(router, pool, cache, settings);
  imports::register_routes(router, pool, imports::Staging(settings.import_upload_dir),
                           wake_importer);
  exports::register_routes(router, pool, cache);
  resources::register_routes(router, pool, cache);
  resources::register_report_result(router, pool, cache);
}

auth::JwksOptions jwks_options(const Settings& settings) {
  auth::JwksOptions options;
  options.url = settings.clerk_jwks_url;
  options.refresh = settings.jwks_refresh;
  options.max_stale = settings.jwks_max_stale;
  options.cached = !settings.broken.no_jwks_cache;
  return options;
}

int migrate(const Settings& settings) {
  for (const std::string& name : database::migrate(settings.database_url, settings.migrations)) {
    fmt::print("applied {}\n", name);
  }
  return 0;
}

int list_routes(const Settings& settings) {
  NoVerifier verifier;
  http::Router router(verifier);
  database::PoolOptions asks_nobody;
  asks_nobody.unlimited = true;
  database::Pool pool(asks_nobody);
  cache::Cache cache({});
  register_all(router, pool, cache, settings, [] {});
  for (const http::RouteInfo& route : router.routes()) {
    fmt::print("{} {} {}\n", route.method, route.path,
               route.least ? to_string(*route.least) : "open");
  }
  return 0;
}

int serve(const Settings& settings) {
  // A server or client that closes its connection is no reason to end.
  std::signal(SIGPIPE, SIG_IGN);
  // Before any thread: they all leave these signals to the one that waits for them.
  sigset_t endings;
  sigemptyset(&endings);
  sigaddset(&endings, SIGTERM);
  sigaddset(&endings, SIGINT);
  pthread_sigmask(SIG_BLOCK, &endings, nullptr);

  cache::CacheOptions cache_options;
  cache_options.url = settings.redis_url;
  cache_options.pass_errors_on = settings.broken.cache_errors;
  cache::Cache cache(cache_options);
  database::PoolOptions pool_options;
  pool_options.url = settings.database_url;
  pool_options.size = settings.database_connections;
  pool_options.unlimited = settings.broken.no_database_timeout;
  pool_options.on_return = [&cache] { cache.forget_all(); };
  database::Pool pool(pool_options);
  auth::TokenVerifier verifier({settings.clerk_issuer, settings.clerk_authorized_parties},
                               jwks_options(settings));
  const imports::Staging staging(settings.import_upload_dir);
  imports::Worker worker(imports::Importer(pool, staging, [&cache](const std::string& of) {
    for (const char* table : {"buildings", "comps"}) cache.forget(of, table);
  }));
  http::Router router(verifier);
  register_all(router, pool, cache, settings, [&worker] { worker.wake(); });
  http::ServerOptions options;
  options.host = settings.host;
  options.port = settings.port;
  options.threads = settings.http_threads;
  options.waiting = settings.http_waiting;
  http::Server server(router, options);
  log("listening on {}:{}", settings.host, server.port());
  std::thread stopper([&] {
    int signal = 0;
    ::sigwait(&endings, &signal);
    log("stopping");
    server.stop();
  });
  server.serve();
  stopper.join();
  log("stopped");
  return 0;
}

void must_have(const char* name, const std::string& value) {
  if (value.empty()) throw std::runtime_error(fmt::format("cannot start without {}", name));
}

int run(const std::string& action) {
  if (action == "--help") {
    fmt::print("{}", usage);
    return 0;
  }
  const Settings settings = settings_from_environment();
  if (action == "--routes") return list_routes(settings);
  must_have("DATABASE_URL", settings.database_url);
  if (action == "--migrate") return migrate(settings);
  if (!action.empty()) {
    fmt::print(stderr, "{}", usage);
    return 2;
  }
  must_have("CLERK_ISSUER", settings.clerk_issuer);
  must_have("CLERK_JWKS_URL", settings.clerk_jwks_url);
  must_have("IMPORT_UPLOAD_DIR", settings.import_upload_dir);
  return serve(settings);
}

}  // namespace
}  // namespace reference

int main(int count, char** arguments) {
  try {
    return reference::run(count > 1 ? arguments[1] : "");
  } catch (const std::exception& error) {
    fmt::print(stderr, "reference-api: {}\n", error.what());
    return 1;
  }
}
