#include "postgres/connection.h"

#include <poll.h>

#include <cstdlib>

#include "base/workers.h"
#include "postgres/connection_string.h"
#include "postgres/time_limit.h"

namespace holdfast::postgres {

namespace {

struct FreeOptions {
  void operator()(PQconninfoOption* options) const { libpq().PQconninfoFree(options); }
};

/// A connection string that libpq cannot parse is refused in words of our own: libpq quotes parts
/// of it, and any part can be a password.
std::unique_ptr<PQconninfoOption, FreeOptions> parse(const std::string& connection) {
  char* why = nullptr;
  std::unique_ptr<PQconninfoOption, FreeOptions> options(
      libpq().PQconninfoParse(connection.c_str(), &why));
  libpq().PQfreemem(why);
  if (options) return options;
  throw base::Error(base::Code::configuration, "cannot use the connection string: it is malformed",
                    "write it as \"host=/run/postgresql user=postgres\" or as a postgresql:// URI");
}

void drop_notice(void* /*unused*/, const PGresult* /*unused*/) {}

std::string_view field(const PGresult* result, int code) {
  const char* text = libpq().PQresultErrorField(result, code);
  return text == nullptr ? std::string_view() : text;
}

constexpr std::string_view grants_hint =
    "as a superuser: GRANT pg_read_all_settings (or pg_monitor) TO the_user; GRANT EXECUTE ON "
    "FUNCTION "
    "pg_backup_start(text, bool), pg_backup_stop(bool), pg_switch_wal(), "
    "pg_create_restore_point(text) TO the_user (up to version 14: pg_start_backup(text, bool, "
    "bool), "
    "pg_stop_backup(bool, bool)), in the database that it connects to";

/// As PQconnectdbParams, within the time limit of this thread.
Handle connect_in_time(const char* const* names, const char* const* values) {
  Handle handle(libpq().PQconnectStartParams(names, values, 1));
  for (PostgresPollingStatusType next = PGRES_POLLING_WRITING;
       next != PGRES_POLLING_OK && next != PGRES_POLLING_FAILED;) {
    if (libpq().PQstatus(handle.get()) == CONNECTION_BAD) break;
    base::stop_if_interrupted();
    pollfd socket{libpq().PQsocket(handle.get()), POLLIN, 0};
    if (next == PGRES_POLLING_WRITING) socket.events = POLLOUT;
    if (::poll(&socket, 1, time_left(200)) > 0) next = libpq().PQconnectPoll(handle.get());
  }
  return handle;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> connection_environment(
    const std::string& connection) {
  std::vector<std::pair<std::string, std::string>> variables;
  const auto options = parse(connection);
  for (const PQconninfoOption* each = options.get(); each->keyword != nullptr; ++each) {
    if (each->val == nullptr) continue;
    if (each->envvar == nullptr) {
      base::fail(base::Code::configuration,
                 "cannot use \"{}\" in this connection string: it has no variable", each->keyword);
    }
    variables.emplace_back(each->envvar, each->val);
  }
  return variables;
}

bool holds_secret(const std::string& connection) {
  char* why = nullptr;
  const std::unique_ptr<PQconninfoOption, FreeOptions> options(
      libpq().PQconninfoParse(connection.c_str(), &why));
  libpq().PQfreemem(why);
  if (!options) return true;
  for (const PQconninfoOption* each = options.get(); each->keyword != nullptr; ++each) {
    if (each->val == nullptr || *each->val == '\0') continue;
    // "*" is libpq's word for what is not to be seen while it is typed; it does not say so of
    // these.
    const std::string_view keyword = each->keyword;
    if (*each->dispchar == '*' || keyword == "scram_client_key" || keyword == "scram_server_key" ||
        keyword == "oauth_client_secret") {
      return true;
    }
  }
  return false;
}

std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c != '\t') line.push_back(c == '\n' ? ' ' : c);
  }
  while (line.ends_with(' ')) line.pop_back();
  return line;
}

Handle connect(const std::string& connection, const std::vector<Keyword>& defaults,
               const std::vector<Keyword>& fixed) {
  parse(connection);
  // Of two values for one keyword the later wins; the string itself stands for "dbname".
  std::vector<const char*> names;
  std::vector<const char*> values;
  const auto add = [&](const char* name, const char* value) {
    names.push_back(name);
    values.push_back(value);
  };
  for (const Keyword& each : defaults) add(each.name, each.value);
  if (std::getenv("PGCONNECT_TIMEOUT") == nullptr) add("connect_timeout", "10");
  add("dbname", connection.c_str());
  for (const Keyword& each : fixed) add(each.name, each.value);
  names.push_back(nullptr);
  values.push_back(nullptr);
  Handle handle(is_time_limited()
                    ? connect_in_time(names.data(), values.data())
                    : Handle(libpq().PQconnectdbParams(names.data(), values.data(), 1)));
  if (libpq().PQstatus(handle.get()) != CONNECTION_OK) {
    base::fail(base::Code::unreachable, "could not connect to PostgreSQL: {}",
               one_line(libpq().PQerrorMessage(handle.get())));
  }
  libpq().PQsetNoticeReceiver(handle.get(), drop_notice, nullptr);
  return handle;
}

void await_answer(PGconn* connection) {
  while (libpq().PQisBusy(connection) == 1) {
    base::stop_if_interrupted();
    pollfd socket{libpq().PQsocket(connection), POLLIN, 0};
    ::poll(&socket, 1, time_left(200));
    if (libpq().PQconsumeInput(connection) != 1) break;
  }
}

[[noreturn]] void fail_query(PGconn* connection, const PGresult* result) {
  const std::string_view severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  const std::string_view state = field(result, PG_DIAG_SQLSTATE);
  std::string message(field(result, PG_DIAG_MESSAGE_PRIMARY));
  if (message.empty()) message = one_line(libpq().PQerrorMessage(connection));
  if (const std::string_view detail = field(result, PG_DIAG_MESSAGE_DETAIL); !detail.empty()) {
    message += fmt::format(" ({})", one_line(detail));
  }
  // FATAL and PANIC end the connection even where libpq has not noticed yet; an error without a
  // state is one of libpq itself, which could not get an answer.
  if (libpq().PQstatus(connection) == CONNECTION_BAD || severity == "FATAL" ||
      severity == "PANIC" || state.empty()) {
    base::fail(base::Code::unreachable, "lost the connection to PostgreSQL: {}", message);
  }
  if (state == "42501") {  // insufficient_privilege
    throw base::Error(base::Code::permission, fmt::format("PostgreSQL: {}", message),
                      std::string(grants_hint));
  }
  base::fail(base::Code::postgres, "PostgreSQL: {}", message);
}

Rows rows_of(const PGresult* result) {
  Rows rows;
  const int columns = libpq().PQnfields(result);
  for (int row = 0; row < libpq().PQntuples(result); ++row) {
    Row& cells = rows.emplace_back();
    for (int column = 0; column < columns; ++column) {
      if (libpq().PQgetisnull(result, row, column) != 0) {
        cells.emplace_back(std::nullopt);
      } else {
        const auto length = static_cast<std::size_t>(libpq().PQgetlength(result, row, column));
        cells.emplace_back(std::string(libpq().PQgetvalue(result, row, column), length));
      }
    }
  }
  return rows;
}

Lsn lsn_of(const std::string& text) {
  const std::optional<Lsn> parsed = parse_lsn(text);
  if (!parsed) {
    base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" where a WAL position was expected",
               text);
  }
  return *parsed;
}

}  // namespace holdfast::postgres
