#include "postgres/session.h"

#include <poll.h>

#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "base/workers.h"
#include "postgres/libpq.h"

namespace holdfast::postgres {

namespace {

struct FreeResult {
  void operator()(PGresult* result) const { libpq().PQclear(result); }
};
using Result = std::unique_ptr<PGresult, FreeResult>;

struct FreeOptions {
  void operator()(PQconninfoOption* options) const { libpq().PQconninfoFree(options); }
};

struct CloseConnection {
  void operator()(PGconn* connection) const { libpq().PQfinish(connection); }
};
using Handle = std::unique_ptr<PGconn, CloseConnection>;

/// libpq ends its messages in line feeds, and uses them and tabs inside.
std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c != '\t') line.push_back(c == '\n' ? ' ' : c);
  }
  while (line.ends_with(' ')) line.pop_back();
  return line;
}

/// A connection string that libpq cannot parse is refused in words of our own: libpq quotes parts
/// of it, and any part can be a password.
void check_parses(const std::string& connection) {
  char* why = nullptr;
  const std::unique_ptr<PQconninfoOption, FreeOptions> options(
      libpq().PQconninfoParse(connection.c_str(), &why));
  libpq().PQfreemem(why);
  if (options) return;
  throw base::Error(base::Code::configuration, "cannot use the connection string: it is malformed",
                    "write it as \"host=/run/postgresql user=postgres\" or as a postgresql:// URI");
}

Handle connect(const std::string& connection, const std::string& database) {
  check_parses(connection);
  // Of two values for one keyword the later wins, and those of the string ("dbname") come last.
  std::vector<const char*> names{"fallback_application_name"};
  std::vector<const char*> values{"holdfast"};
  if (std::getenv("PGCONNECT_TIMEOUT") == nullptr) {
    names.push_back("connect_timeout");
    values.push_back("10");
  }
  names.push_back("dbname");
  values.push_back(connection.c_str());
  if (!database.empty()) {  // only the first "dbname" is taken for a connection string
    names.push_back("dbname");
    values.push_back(database.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  return Handle(libpq().PQconnectdbParams(names.data(), values.data(), 1));
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

template <typename T>
T number(const std::string& text) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) {
    base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" where a number was expected",
               text);
  }
  return value;
}

Lsn lsn(const std::string& text) {
  const std::optional<Lsn> parsed = parse_lsn(text);
  if (!parsed) {
    base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" where a WAL position was expected",
               text);
  }
  return *parsed;
}

/// The bytes of a text column in hexadecimal, without the conversion to the client's encoding:
/// paths in a tablespace map have no encoding.
std::string raw_hex(std::string_view column) {
  return fmt::format("encode(decode(replace({}, chr(92), chr(92) || chr(92)), 'escape'), 'hex')",
                     column);
}

std::string text_of_hex(const std::optional<std::string>& hex) {
  return hex ? std::string(base::text(base::from_hex(*hex))) : std::string();
}

/// As PQexecParams does, but a signal that asks us to stop is heeded while the server works: a
/// checkpoint or a lock may take long.
Result execute(PGconn* connection, const std::string& sql, const std::vector<const char*>& values) {
  if (libpq().PQsendQueryParams(connection, sql.c_str(), static_cast<int>(values.size()), nullptr,
                                values.data(), nullptr, nullptr, 0) != 1) {
    return nullptr;
  }
  while (libpq().PQisBusy(connection) == 1) {
    base::stop_if_interrupted();
    pollfd socket{libpq().PQsocket(connection), POLLIN, 0};
    ::poll(&socket, 1, 200);
    if (libpq().PQconsumeInput(connection) != 1) break;
  }
  Result last;
  for (Result next(libpq().PQgetResult(connection)); next;
       next.reset(libpq().PQgetResult(connection))) {
    last = std::move(next);
  }
  return last;
}

}  // namespace

struct Session::Connection {
  Handle handle;
};

Session::Session(const std::string& connection, const std::string& database)
    : connection_(std::make_unique<Connection>(Connection{connect(connection, database)})) {
  PGconn* handle = connection_->handle.get();
  if (libpq().PQstatus(handle) != CONNECTION_OK) {
    base::fail(base::Code::unreachable, "could not connect to PostgreSQL: {}",
               one_line(libpq().PQerrorMessage(handle)));
  }
  libpq().PQsetNoticeReceiver(handle, drop_notice, nullptr);
  // From here on names mean what we think they mean, whatever a role or database has set.
  query(
      "SELECT pg_catalog.set_config('statement_timeout', '0', false),"
      " pg_catalog.set_config('search_path', 'pg_catalog', false)");
  query(
      "SELECT set_config(name, v, false) FROM pg_settings JOIN (VALUES ("
      "'idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),"
      " ('transaction_timeout', '0'), ('client_encoding', 'UTF8'), ('DateStyle', 'ISO'),"
      " ('extra_float_digits', '1')) AS wanted (name, v) USING (name)");
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Rows Session::query(const std::string& sql, const std::vector<std::string>& parameters) {
  std::vector<const char*> values;
  for (const std::string& parameter : parameters) {
    if (parameter.find('\0') != std::string::npos) {
      base::fail(base::Code::usage, "cannot pass a text with a zero byte to PostgreSQL");
    }
    values.push_back(parameter.c_str());
  }
  PGconn* handle = connection_->handle.get();
  const Result result = execute(handle, sql, values);
  switch (libpq().PQresultStatus(result.get())) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
      return rows_of(result.get());
    default:
      fail_query(handle, result.get());
  }
}

void Session::run_script(const std::string& sql) {
  PGconn* handle = connection_->handle.get();
  const Result result(libpq().PQexec(handle, sql.c_str()));
  const ExecStatusType status = libpq().PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail_query(handle, result.get());
}

std::string Session::value(const std::string& sql, const std::vector<std::string>& parameters) {
  Rows rows = query(sql, parameters);
  if (rows.size() != 1 || rows[0].size() != 1 || !rows[0][0]) {
    base::fail(base::Code::postgres, "PostgreSQL gave no single value for: {}", sql);
  }
  return *std::move(rows[0][0]);
}

std::optional<std::string> Session::setting(std::string_view name) {
  return query("SELECT current_setting($1, true)", {std::string(name)}).at(0).at(0);
}

int Session::version_number() {
  return libpq().PQserverVersion(connection_->handle.get());
}

bool Session::in_recovery() {
  return value("SELECT pg_is_in_recovery()") == "t";
}

SystemId Session::system_id() {
  // SQL has no unsigned numbers: from 2038 on the value is printed as a negative one.
  const std::string text = value("SELECT system_identifier FROM pg_control_system()");
  return {static_cast<std::uint64_t>(number<std::int64_t>(text))};
}

base::Timestamp Session::clock() {
  const std::string text =
      value("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
  return base::Timestamp(base::Microseconds(number<std::int64_t>(text)));
}

Timeline Session::timeline() {
  return {number<std::uint32_t>(value("SELECT timeline_id FROM pg_control_checkpoint()"))};
}

Lsn Session::current_lsn() {
  return lsn(
      value("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
            " ELSE pg_current_wal_lsn() END"));
}

bool Session::alive() {
  try {
    return value("SELECT 1") == "1";
  } catch (const base::Error&) {
    return false;
  }
}

Session::BackupStart Session::start_backup(const std::string& label, bool fast_checkpoint) {
  const std::string sql = version_number() >= 150000
                              ? "SELECT pg_backup_start($1::text, $2::boolean)"
                              : "SELECT pg_start_backup($1::text, $2::boolean, false)";
  return {lsn(value(sql, {label, fast_checkpoint ? "true" : "false"}))};
}

Session::BackupStop Session::stop_backup() {
  const std::string_view function =
      version_number() >= 150000 ? "pg_backup_stop(false)" : "pg_stop_backup(false, false)";
  const Rows rows = query(fmt::format("SELECT lsn, {}, {} FROM {}", raw_hex("labelfile"),
                                      raw_hex("spcmapfile"), function));
  if (rows.size() != 1 || !rows[0][0] || !rows[0][1]) {
    base::fail(base::Code::postgres, "PostgreSQL ended the backup without saying where");
  }
  return {lsn(*rows[0][0]), text_of_hex(rows[0][1]), text_of_hex(rows[0][2])};
}

}  // namespace holdfast::postgres
