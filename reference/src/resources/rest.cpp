#include "resources/rest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "http/problem.h"
#include "resources/audit.h"
#include "resources/cursor.h"
#include "resources/fields.h"
#include "resources/list_query.h"
#include "resources/table.h"

namespace reference::resources {

namespace {

using auth::Principal;
using database::Refused;
using http::Problem;
using http::Request;
using http::Response;

Problem not_there(const Table& table) {
  return {404, "not_found", "there is no such row in " + table.name};
}

/// The id in the path; what is none cannot be there.
const std::string& id_of(const Table& table, const Request& request) {
  const std::string& id = request.named.at("id");
  if (!is_uuid(id)) throw not_there(table);
  return id;
}

/// The column whose foreign key this is: TABLE_organisation_COLUMN_fkey, as PostgreSQL names it.
std::string referring_column(const Table& table, const std::string& constraint) {
  for (const Column& column : table.columns) {
    if (constraint == table.name + "_organisation_" + column.name + "_fkey") return column.name;
  }
  return "";
}

/// What the database's refusal of a new or changed row means to the client.
[[noreturn]] void explain(const Table& table, const Refused& refused) {
  const std::string& state = refused.sqlstate();
  if (state == "23505") throw Problem(409, "exists", "cannot do that: there is one already");
  if (state == "23503") {
    const std::string column = referring_column(table, refused.constraint());
    if (!column.empty()) throw Problem({{column, "is not there"}});
    throw Problem(409, "no_organisation",
                  "cannot do that before the organisation is there: POST /organisations");
  }
  if (state == "23514") {
    throw Problem(422, "invalid", "cannot accept these fields together: " + refused.constraint());
  }
  if (state.starts_with("22")) {
    throw Problem(422, "invalid", std::string("cannot accept a field: ") + refused.what());
  }
  throw;
}

class Rest {
 public:
  Rest(const Table& table, database::Pool& pool, cache::Cache& cache)
      : table_(table),
        pool_(pool),
        cache_(cache),
        json_(table.json()),
        read_(fmt::format("SELECT {} FROM {} WHERE {} = $1 AND id = $2::uuid", json_, table.name,
                          table.tenant)) {}

  Response list(const Request& request, const Principal& principal) const {
    const ListQuery query = list_query(table_, principal.organisation, request);
    return respond(cached(principal, "list?" + query.name, [&] { return list_now(query); }));
  }

  Response read(const Request& request, const Principal& principal) const {
    const std::string& id = id_of(table_, request);
    return respond(cached(principal, id, [&] {
      const database::Rows rows = pool_.session().run(read_, {principal.organisation, id});
      if (rows.empty()) throw not_there(table_);
      return std::string(rows.text(0, 0));
    }));
  }

  Response create(const Request& request, const Principal& principal) const {
    Fields fields = fields_of_new(table_, request.json());
    fields[table_.tenant] = principal.organisation;
    std::string names;
    std::string values;
    database::Parameters parameters;
    for (const auto& [name, value] : fields) {
      parameters.push_back(value);
      names += (names.empty() ? "" : ", ") + name;
      values += fmt::format("{}${}::{}", values.empty() ? "" : ", ", parameters.size(), type(name));
    }
    const std::string sql = fmt::format("INSERT INTO {} ({}) VALUES ({}) RETURNING id, {}",
                                        table_.name, names, values, json_);
    Response response;
    response.status = 201;
    std::string id;
    changing(principal, [&](database::Transaction& transaction) {
      const database::Rows made = transaction.run(sql, parameters);
      id = made.text(0, 0);
      response.body = made.text(0, 1);
      audit(transaction, principal, {"create", table_.name, id, {}, response.body});
    });
    response.headers.emplace_back("Location", fmt::format("/{}/{}", table_.name, id));
    return response;
  }

  Response change(const Request& request, const Principal& principal) const {
    const std::string& id = id_of(table_, request);
    const Fields fields = fields_of_change(table_, request.json());
    std::string set = "updated_at = clock_timestamp()";
    database::Parameters parameters = {principal.organisation, id};
    for (const auto& [name, value] : fields) {
      parameters.push_back(value);
      set += fmt::format(", {} = ${}::{}", name, parameters.size(), type(name));
    }
    const std::string sql =
        fmt::format("UPDATE {} SET {} WHERE {} = $1 AND id = $2::uuid RETURNING {}", table_.name,
                    set, table_.tenant, json_);
    Response response;
    changing(principal, [&](database::Transaction& transaction) {
      const std::string before = locked(transaction, principal, id);
      response.body = transaction.run(sql, parameters).text(0, 0);
      audit(transaction, principal, {"change", table_.name, id, before, response.body});
    });
    return response;
  }

  Response remove(const Request& request, const Principal& principal) const {
    const std::string& id = id_of(table_, request);
    try {
      changing(principal, [&](database::Transaction& transaction) {
        const std::string before = locked(transaction, principal, id);
        transaction.run(fmt::format("DELETE FROM {} WHERE {} = $1 AND id = $2::uuid", table_.name,
                                    table_.tenant),
                        {principal.organisation, id});
        audit(transaction, principal, {"delete", table_.name, id, before, {}});
      });
    } catch (const Problem& problem) {
      if (problem.code() != "no_organisation") throw;
      throw Problem(409, "in_use", "cannot delete this row: others refer to it");
    }
    Response response;
    response.status = 204;
    return response;
  }

 private:
  std::string_view type(const std::string& name) const {
    const Column* column = table_.find(name);
    return sql_type(column == nullptr ? Kind::text : column->kind);
  }

  cache::Cache::Answer cached(const Principal& principal, const std::string& name,
                              const std::function<std::string()>& make) const {
    // What is kept is not shown while nobody can say whether it is still so.
    pool_.must_be_up();
    if (!table_.cached) return {make()};
    return cache_.through(principal.organisation, table_.name, name, make);
  }

  std::string list_now(const ListQuery& query) const {
    try {
      const database::Rows rows = pool_.session().run(query.sql, query.parameters);
      std::string body = R"({"data":[)";
      const std::size_t count = std::min(rows.size(), query.limit);
      for (std::size_t row = 0; row < count; ++row) {
        if (row > 0) body += ',';
        body += rows.text(row, 2);
      }
      body += R"(],"next":)";
      if (rows.size() <= query.limit) return body + "null}";
      // Both parts are digits, letters and dashes.
      return body + '"' +
             to_text({std::string(rows.text(count - 1, 0)), std::string(rows.text(count - 1, 1))}) +
             "\"}";
    } catch (const Refused& refused) {
      if (!refused.sqlstate().starts_with("22")) throw;
      throw Problem(400, "bad_parameter", std::string("cannot filter so: ") + refused.what());
    }
  }

  /// The row as it is, which nobody else changes from now on.
  std::string locked(database::Transaction& transaction, const Principal& principal,
                     const std::string& id) const {
    const database::Rows rows =
        transaction.run(read_ + " FOR UPDATE", {principal.organisation, id});
    if (rows.empty()) throw not_there(table_);
    return std::string(rows.text(0, 0));
  }

  void changing(const Principal& principal,
                const std::function<void(database::Transaction&)>& work) const {
    try {
      database::Session session = pool_.session();
      database::Transaction transaction(session);
      work(transaction);
      try {
        transaction.commit();
      } catch (const Problem&) {
        // It may have been committed all the same.
        forget(principal);
        throw;
      }
    } catch (const Refused& refused) {
      explain(table_, refused);
    }
    forget(principal);
  }

  void forget(const Principal& principal) const {
    if (table_.cached) cache_.forget(principal.organisation, table_.name);
    for (const std::string& referring : table_.referring) {
      cache_.forget(principal.organisation, referring);
    }
  }

  const Table& table_;
  database::Pool& pool_;
  cache::Cache& cache_;
  std::string json_;
  std::string read_;
};

}  // namespace

http::Response respond(cache::Cache::Answer answer) {
  Response response;
  response.body = std::move(answer.value);
  response.headers.emplace_back("X-Cache", answer.hit ? "hit" : "miss");
  return response;
}

void register_routes(http::Router& router, database::Pool& pool, cache::Cache& cache) {
  for (const Table& table : tables()) {
    const auto rest = std::make_shared<const Rest>(table, pool, cache);
    const auto route = [&](const char* method, const char* more, auth::Role least, auto action) {
      router.add(method, "/" + table.name + more, least,
                 [rest, action](Request& request, const Principal& principal) {
                   return ((*rest).*action)(request, principal);
                 });
    };
    route("GET", "", table.reads, &Rest::list);
    route("GET", "/{id}", table.reads, &Rest::read);
    if (table.creates) route("POST", "", table.writes, &Rest::create);
    if (table.changes) route("PATCH", "/{id}", table.writes, &Rest::change);
    if (table.deletes) route("DELETE", "/{id}", table.writes, &Rest::remove);
  }
}

}  // namespace reference::resources
