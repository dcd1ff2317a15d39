#include "imports/routes.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "http/problem.h"
#include "imports/utf8.h"
#include "resources/audit.h"
#include "resources/fields.h"

namespace reference::imports {
namespace {

using nlohmann::json;

/// A random UUID (version 4): unguessable.
std::string new_id() {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw std::runtime_error("could not get random bytes");
  }
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string id;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (at == 4 || at == 6 || at == 8 || at == 10) id += '-';
    id += fmt::format("{:02x}", bytes[at]);
  }
  return id;
}

/// A text that a client chose, fit to be stored.
std::optional<std::string> checked(std::optional<std::string> text, const char* what) {
  const auto is_control = [](char each) { return static_cast<unsigned char>(each) < ' '; };
  if (text && (text->size() > 200 || !is_utf8(*text) ||
               std::any_of(text->begin(), text->end(), is_control))) {
    throw http::Problem{400, "bad_parameter", fmt::format("cannot accept this {}", what)};
  }
  return text;
}

struct Wanted {
  std::string kind;
  std::string file_name;
  std::optional<std::string> key;
};

Wanted read_request(const http::Request& request) {
  request.must_be("text/csv");
  Wanted wanted;
  wanted.kind = request.parameter("kind").value_or("");
  if (wanted.kind != "comps" && wanted.kind != "buildings") {
    throw http::Problem{400, "bad_parameter", "kind must be comps or buildings"};
  }
  wanted.file_name = checked(request.parameter("file_name"), "file_name").value_or("");
  const std::string key = request.header ? request.header("Idempotency-Key") : "";
  if (!key.empty()) wanted.key = checked(key, "Idempotency-Key");
  if (request.body == nullptr) {
    throw http::Problem{400, "bad_body", "cannot import without a file in the body"};
  }
  return wanted;
}

http::Response accepted(const json& job) {
  http::Response response;
  response.status = 202;
  response.body = job.dump();
  response.headers.emplace_back("Location", "/import_jobs/" + job.at("id").get<std::string>());
  return response;
}

std::optional<json> earlier(const database::Rows& rows) {
  if (rows.empty()) return std::nullopt;
  return json::parse(rows.text(0, 0));
}

/// The job that an earlier request with this key made.
std::optional<json> job_of_key(database::Session& session, const std::string& organisation,
                               const std::optional<std::string>& key) {
  if (!key) return std::nullopt;
  return earlier(session.run("SELECT " + resources::table_of("import_jobs").json() +
                                 " FROM import_jobs WHERE organisation = $1 AND request_key = $2",
                             {organisation, *key}));
}

void check_waiting(database::Session& session, const std::string& organisation) {
  const database::Rows unfinished = session.run(
      "SELECT count(*) FROM import_jobs"
      " WHERE organisation = $1 AND state IN ('queued', 'running')",
      {organisation});
  if (std::stoi(std::string(unfinished.text(0, 0))) >= most_waiting) {
    throw http::Problem{503, "too_many_imports",
                        "could not take another import before some are done",
                        std::chrono::seconds(30)};
  }
}

/// Absent if another request with the same key was quicker.
std::optional<json> create_job(database::Session& session, const auth::Principal& principal,
                               const Wanted& wanted, const std::string& id, std::size_t bytes) {
  database::Transaction transaction(session);
  const database::Rows made = transaction.run(
      "INSERT INTO import_jobs"
      " (id, organisation, created_by, kind, file_name, bytes, request_key)"
      " VALUES ($1::uuid, $2, $3, $4, $5, $6::bigint, $7)"
      " ON CONFLICT (organisation, request_key) DO NOTHING RETURNING " +
          resources::table_of("import_jobs").json(),
      {id, principal.organisation, principal.user, wanted.kind, wanted.file_name,
       std::to_string(bytes), wanted.key});
  std::optional<json> job = earlier(made);
  if (!job) return std::nullopt;
  resources::audit(transaction, principal,
                   {.action = "create",
                    .table = "import_jobs",
                    .row = id,
                    .before = std::nullopt,
                    .after = job->dump()});
  transaction.commit();
  return job;
}

http::Response post_job(http::Request& request, const auth::Principal& principal,
                        database::Pool& pool, const Staging& staging) {
  const Wanted wanted = read_request(request);
  {
    // Given back before the upload, which takes as long as the client likes.
    database::Session session = pool.session();
    if (auto job = job_of_key(session, principal.organisation, wanted.key)) return accepted(*job);
    check_waiting(session, principal.organisation);
  }
  const std::string id = new_id();
  const std::size_t bytes = staging.receive(id, *request.body);
  // Should this fail, nobody knows whether the job was made: the file stays, until sweep() knows.
  database::Session session = pool.session();
  std::optional<json> job;
  try {
    job = create_job(session, principal, wanted, id, bytes);
  } catch (const database::Refused& refused) {
    staging.remove(id);
    if (refused.sqlstate() != "23503") throw;
    throw http::Problem{409, "no_organisation",
                        "cannot do that before the organisation is there: POST /organisations"};
  }
  if (!job) {
    staging.remove(id);
    job = job_of_key(session, principal.organisation, wanted.key);
  }
  if (!job) throw http::Problem{409, "conflict", "the job of this Idempotency-Key was deleted"};
  return accepted(*job);
}

std::uint64_t number_of(const http::Request& request, const char* name, std::uint64_t usual,
                        std::uint64_t most) {
  const std::optional<std::string> text = request.parameter(name);
  if (!text) return usual;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > most) {
    throw http::Problem{400, "bad_parameter", fmt::format("{} must be a number", name)};
  }
  return value;
}

http::Response get_errors(const http::Request& request, const auth::Principal& principal,
                          database::Pool& pool) {
  const std::string& id = request.named.at("id");
  const std::uint64_t after = number_of(request, "after", 0, 1UL << 62);
  const std::uint64_t limit = number_of(request, "limit", 100, 1000);
  database::Session session = pool.session();
  if (!resources::is_uuid(id) ||
      session
          .run("SELECT FROM import_jobs WHERE organisation = $1 AND id = $2::uuid",
               {principal.organisation, id})
          .empty()) {
    throw http::Problem{404, "not_found", "there is no such import job"};
  }
  const database::Rows rows = session.run(
      "SELECT line, reason FROM import_errors"
      " WHERE organisation = $1 AND import_job = $2::uuid AND line > $3::bigint"
      " ORDER BY line LIMIT $4::bigint",
      {principal.organisation, id, std::to_string(after), std::to_string(limit + 1)});
  json items = json::array();
  for (std::size_t row = 0; row < std::min<std::size_t>(rows.size(), limit); ++row) {
    items.push_back(
        {{"line", std::stoull(std::string(rows.text(row, 0)))}, {"reason", rows.text(row, 1)}});
  }
  json answer = {{"data", items}, {"next", nullptr}};
  if (rows.size() > limit && !items.empty()) answer["next"] = items.back()["line"];
  http::Response response;
  response.body = answer.dump();
  return response;
}

}  // namespace

void register_routes(http::Router& router, database::Pool& pool, const Staging& staging,
                     const std::function<void()>& wake) {
  router.add("POST", "/import_jobs", auth::Role::editor,
             [&pool, staging, wake](http::Request& request, const auth::Principal& principal) {
               http::Response response = post_job(request, principal, pool, staging);
               wake();
               return response;
             });
  router.add("GET", "/import_jobs/{id}/errors", auth::Role::viewer,
             [&pool](http::Request& request, const auth::Principal& principal) {
               return get_errors(request, principal, pool);
             });
}

}  // namespace reference::imports
