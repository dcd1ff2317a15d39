#include "postgres/session.h"

#include "base/error.h"
#include "postgres/connection.h"

namespace holdfast::postgres {

namespace {

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
  await_answer(connection);
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
    : connection_(std::make_unique<Connection>()) {
  std::vector<Keyword> fixed;
  // Only the first "dbname" is taken for a connection string.
  if (!database.empty()) fixed.push_back({"dbname", database.c_str()});
  connection_->handle = connect(connection, {{"fallback_application_name", "holdfast"}}, fixed);
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
  return lsn_of(
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
  return {lsn_of(value(sql, {label, fast_checkpoint ? "true" : "false"}))};
}

Session::BackupStop Session::stop_backup() {
  const std::string_view function =
      version_number() >= 150000 ? "pg_backup_stop(false)" : "pg_stop_backup(false, false)";
  const Rows rows = query(fmt::format("SELECT lsn, {}, {} FROM {}", raw_hex("labelfile"),
                                      raw_hex("spcmapfile"), function));
  if (rows.size() != 1 || !rows[0][0] || !rows[0][1]) {
    base::fail(base::Code::postgres, "PostgreSQL ended the backup without saying where");
  }
  return {lsn_of(*rows[0][0]), text_of_hex(rows[0][1]), text_of_hex(rows[0][2])};
}

namespace {

PGPing ping(const std::string& connection) {
  const char* const names[] = {"dbname", "connect_timeout", nullptr};
  const char* const values[] = {connection.c_str(), "5", nullptr};
  return libpq().PQpingParams(names, values, 1);
}

}  // namespace

bool somebody_answers(const std::string& connection) {
  const PGPing answer = ping(connection);
  return answer == PQPING_OK || answer == PQPING_REJECT;
}

bool accepts_connections(const std::string& connection) {
  return ping(connection) == PQPING_OK;
}

}  // namespace holdfast::postgres
