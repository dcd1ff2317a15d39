#include "database/connection.h"

#include <fmt/format.h>

#include <poll.h>

#include <cerrno>
#include <cstdlib>

#include "database/lookup.h"

namespace reference::database {

namespace {

/// Statements prepared for each connection; they are few, unless clients combine many filters.
constexpr std::size_t most_prepared = 500;

/// Where the server is, as far as the URL or the environment (PGHOST, PGPORT) says.
ServerAddress server_of(const std::string& url, const Deadline& deadline) {
  static Lookup lookup(&Lookup::ask_system);
  const auto environment = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  ServerAddress server{environment("PGHOST"), environment("PGHOSTADDR"), environment("PGPORT")};
  const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> options(
      ::PQconninfoParse(url.c_str(), nullptr), &::PQconninfoFree);
  // What cannot be parsed is libpq's to refuse, with its own words.
  if (!options) return {};
  for (const PQconninfoOption* each = options.get(); each->keyword != nullptr; ++each) {
    if (each->val == nullptr) continue;
    const std::string_view keyword = each->keyword;
    if (keyword == "host") server.host = each->val;
    if (keyword == "hostaddr") server.hostaddr = each->val;
    if (keyword == "port") server.port = each->val;
  }
  return looked_up(server, lookup, deadline);
}

std::string trimmed(const char* text) {
  std::string line = text == nullptr ? "" : text;
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
  return line;
}

std::string field(const PGresult* result, int code) {
  const char* value = ::PQresultErrorField(result, code);
  return value == nullptr ? "" : value;
}

}  // namespace

bool Refused::is_state_of_server() const {
  // Shutting down or starting, no room (connections, memory, disk), a standby's read-only
  // transactions.
  return sqlstate_.starts_with("57P") || sqlstate_.starts_with("53") ||
         sqlstate_.starts_with("08") || sqlstate_ == "25006";
}

std::optional<std::string_view> Rows::value(std::size_t row, std::size_t column) const {
  const int at = static_cast<int>(row);
  const int of = static_cast<int>(column);
  if (::PQgetisnull(result_.get(), at, of) != 0) return std::nullopt;
  return std::string_view(::PQgetvalue(result_.get(), at, of),
                          static_cast<std::size_t>(::PQgetlength(result_.get(), at, of)));
}

std::size_t Rows::changed() const {
  const std::string count = ::PQcmdTuples(result_.get());
  return count.empty() ? 0 : std::stoull(count);
}

Connection::Connection(const std::string& url, const Deadline& deadline)
    : connection_(nullptr, &::PQfinish) {
  const ServerAddress server = server_of(url, deadline);
  // A statement whose client has gone (a deadline has passed) ends by itself, and its locks with
  // it.
  // What comes behind dbname counts more than the same in the URL.
  const char* keywords[] = {"dbname",  "host", "hostaddr", "port", "fallback_application_name",
                            "options", nullptr};
  const char* values[] = {url.c_str(),
                          server.host.c_str(),
                          server.hostaddr.c_str(),
                          server.port.c_str(),
                          "reference-api",
                          "-c client_connection_check_interval=1s -c TimeZone=UTC "
                          "-c DateStyle=ISO -c search_path=public",
                          nullptr};
  connection_.reset(::PQconnectStartParams(keywords, values, 1));
  if (connection_ == nullptr) throw Unreachable("could not connect to the database: no memory");
  connect(deadline);
}

void Connection::connect(const Deadline& deadline) {
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (::PQstatus(connection_.get()) != CONNECTION_BAD) {
    if (state == PGRES_POLLING_OK) {
      ::PQsetnonblocking(connection_.get(), 1);
      return;
    }
    if (state == PGRES_POLLING_FAILED) break;
    await(state == PGRES_POLLING_WRITING, deadline);
    state = ::PQconnectPoll(connection_.get());
  }
  throw Unreachable(trimmed(::PQerrorMessage(connection_.get())));
}

void Connection::await(bool writing, const Deadline& deadline) {
  pollfd wanted{::PQsocket(connection_.get()),
                static_cast<short>(writing ? POLLIN | POLLOUT : POLLIN), 0};
  const int ready = ::poll(&wanted, 1, deadline.left());
  if (ready > 0 || (ready < 0 && errno == EINTR)) return;
  broken_ = true;
  throw Unreachable("the database has not answered in time");
}

void Connection::fail() {
  broken_ = true;
  throw Unreachable("lost the database: " + trimmed(::PQerrorMessage(connection_.get())));
}

Rows Connection::finish(const Deadline& deadline) {
  std::optional<Rows> last;
  std::optional<Refused> refused;
  for (;;) {
    const int unsent = ::PQflush(connection_.get());
    if (unsent < 0) fail();
    while (unsent == 0 && ::PQisBusy(connection_.get()) != 0) {
      await(false, deadline);
      if (::PQconsumeInput(connection_.get()) == 0) fail();
    }
    if (unsent > 0) {
      await(true, deadline);
      if (::PQconsumeInput(connection_.get()) == 0) fail();
      continue;
    }
    PGresult* result = ::PQgetResult(connection_.get());
    if (result == nullptr) break;
    Rows rows(result);
    if (::PQresultStatus(result) == PGRES_FATAL_ERROR) {
      if (::PQstatus(connection_.get()) == CONNECTION_BAD) fail();
      refused.emplace(field(result, PG_DIAG_SQLSTATE), field(result, PG_DIAG_CONSTRAINT_NAME),
                      field(result, PG_DIAG_MESSAGE_PRIMARY));
    } else {
      last.emplace(std::move(rows));
    }
  }
  if (refused) throw *refused;
  if (!last) fail();
  return std::move(*last);
}

const std::string& Connection::prepared(const std::string& sql, const Deadline& deadline) {
  const auto known = prepared_.find(sql);
  if (known != prepared_.end()) return known->second;
  if (prepared_.size() >= most_prepared) {
    run_script("DEALLOCATE ALL", deadline);
    prepared_.clear();
  }
  const std::string name = fmt::format("s{}", prepared_.size());
  if (::PQsendPrepare(connection_.get(), name.c_str(), sql.c_str(), 0, nullptr) == 0) fail();
  finish(deadline);
  return prepared_.emplace(sql, name).first->second;
}

Rows Connection::run(const std::string& sql, const Parameters& parameters,
                     const Deadline& deadline) {
  const std::string& name = prepared(sql, deadline);
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const auto& parameter : parameters) {
    values.push_back(parameter ? parameter->c_str() : nullptr);
  }
  if (::PQsendQueryPrepared(connection_.get(), name.c_str(), static_cast<int>(values.size()),
                            values.data(), nullptr, nullptr, 0) == 0) {
    fail();
  }
  return finish(deadline);
}

Rows Connection::run_script(const std::string& sql, const Deadline& deadline) {
  if (::PQsendQuery(connection_.get(), sql.c_str()) == 0) fail();
  return finish(deadline);
}

bool Connection::clean() const {
  if (broken_ || ::PQstatus(connection_.get()) != CONNECTION_OK ||
      ::PQtransactionStatus(connection_.get()) != PQTRANS_IDLE) {
    return false;
  }
  // Between statements the server says nothing, unless it says goodbye.
  pollfd silent{::PQsocket(connection_.get()), POLLIN, 0};
  return ::poll(&silent, 1, 0) == 0;
}

}  // namespace reference::database
