#include "exports/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "exports/download.h"
#include "http/problem.h"
#include "log.h"
#include "resources/audit.h"
#include "resources/fields.h"

namespace reference::exports {
namespace {

using nlohmann::json;

/// One of the places for downloads; gives it back.
class Place {
 public:
  Place() {
    if (taken_.fetch_add(1) < most_downloads) return;
    --taken_;
    throw http::Problem{503, "too_many_downloads", "could not begin another download now",
                        std::chrono::seconds(5)};
  }
  ~Place() { --taken_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  static inline std::atomic<int> taken_ = 0;
};

struct Running {
  Place place;
  Download download;
  Running(database::Pool& pool, std::string_view kind, const std::string& organisation)
      : download(pool, kind, organisation) {}
};

/// Its id; `row` becomes the row as JSON.
std::string create(database::Pool& pool, const auth::Principal& principal, const std::string& kind,
                   const std::string& title, std::string& row) {
  database::Session session = pool.session();
  database::Transaction transaction(session);
  try {
    const database::Rows made = transaction.run(
        "INSERT INTO exports (organisation, created_by, kind, title) VALUES ($1, $2, $3, $4)"
        " RETURNING id, " +
            resources::table_of("exports").json(),
        {principal.organisation, principal.user, kind, title});
    std::string id(made.text(0, 0));
    row = made.text(0, 1);
    resources::audit(transaction, principal, {"create", "exports", id, {}, row});
    transaction.commit();
    return id;
  } catch (const database::Refused& refused) {
    if (refused.sqlstate() != "23503") throw;
    throw http::Problem{409, "no_organisation",
                        "cannot do that before the organisation is there: POST /organisations"};
  }
}

http::Response post_export(const http::Request& request, const auth::Principal& principal,
                           database::Pool& pool, cache::Cache& cache) {
  const json body = request.json();
  const auto text = [&](const char* name) -> std::optional<std::string> {
    if (!body.is_object() || !body.contains(name)) return "";
    const json& value = body[name];
    if (!value.is_string()) return std::nullopt;
    return value.get<std::string>();
  };
  const std::string kind = text("kind").value_or("");
  if (kind != "buildings" && kind != "comps" && kind != "tims") {
    throw http::Problem{{{"kind", "must be buildings, comps or tims"}}};
  }
  const std::optional<std::string> title = text("title");
  if (!title || title->size() > 200 || title->find('\0') != title->npos) {
    throw http::Problem{{{"title", "must be a text of up to 200 bytes"}}};
  }
  http::Response response;
  response.status = 201;
  const std::string id = create(pool, principal, kind, *title, response.body);
  cache.forget(principal.organisation, "exports");
  response.headers.emplace_back("Location", "/exports/" + id);
  return response;
}

std::string kind_of(database::Pool& pool, const std::string& organisation, const std::string& id) {
  if (resources::is_uuid(id)) {
    database::Session session = pool.session();
    const database::Rows found = session.run(
        "SELECT kind FROM exports WHERE organisation = $1 AND id = $2::uuid", {organisation, id});
    if (!found.empty()) return std::string(found.text(0, 0));
  }
  throw http::Problem{404, "not_found", "there is no such export"};
}

http::Response download(const http::Request& request, const auth::Principal& principal,
                        database::Pool& pool) {
  const std::string& id = request.named.at("id");
  const std::string kind = kind_of(pool, principal.organisation, id);
  const auto running = std::make_shared<Running>(pool, kind, principal.organisation);
  http::Response response;
  response.content_type = "text/csv; charset=utf-8; header=present";
  // Of nothing but what is known to be harmless in a header.
  response.headers = {{"Content-Disposition",
                       fmt::format("attachment; filename=\"{}-{}.csv\"", kind, id.substr(0, 8))},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Cache-Control", "no-store"}};
  response.stream = [running, id](const http::Write& write) {
    try {
      running->download.write_to(write);
    } catch (const std::exception& error) {
      log("exports: {} was cut off: {}", id, error.what());
      throw;
    }
  };
  return response;
}

}  // namespace

void register_routes(http::Router& router, database::Pool& pool, cache::Cache& cache) {
  router.add("POST", "/exports", auth::Role::editor,
             [&pool, &cache](http::Request& request, const auth::Principal& principal) {
               return post_export(request, principal, pool, cache);
             });
  router.add("GET", "/exports/{id}/download", auth::Role::viewer,
             [&pool](http::Request& request, const auth::Principal& principal) {
               return download(request, principal, pool);
             });
}

}  // namespace reference::exports
