#include "operations/heartbeat.h"

#include "base/error.h"

namespace holdfast::operations {

namespace {

std::string quoted(postgres::Session& session, const HeartbeatTable& table) {
  return session.value("SELECT format('%I.%I', $1::text, $2::text)", {table.schema, table.table});
}

base::Timestamp timestamp_of(const std::string& microseconds) {
  return base::Timestamp(base::Microseconds(std::stoll(microseconds)));
}

}  // namespace

HeartbeatTable parse_heartbeat(const std::string& name) {
  const std::size_t first = name.find('.');
  const std::size_t second = name.find('.', first + 1);
  if (first == std::string::npos || second == std::string::npos) {
    base::fail(base::Code::configuration, "\"{}\" does not name \"database.schema.table\"", name);
  }
  return {name.substr(0, first), name.substr(first + 1, second - first - 1),
          name.substr(second + 1)};
}

base::Timestamp beat(const std::string& connection, const HeartbeatTable& table) {
  postgres::Session session(connection, table.database);
  const std::string name = quoted(session, table);
  if (session.query("SELECT to_regclass($1)", {name}).at(0).at(0) == std::nullopt) {
    session.run_script(
        fmt::format("CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE IF NOT EXISTS {} "
                    "(one boolean PRIMARY KEY DEFAULT true CHECK (one), beat timestamptz NOT NULL)",
                    session.value("SELECT quote_ident($1)", {table.schema}), name));
  }
  return timestamp_of(
      session.value(fmt::format("INSERT INTO {0} (one, beat) VALUES (true, clock_timestamp()) "
                                "ON CONFLICT (one) DO UPDATE SET beat = excluded.beat "
                                "RETURNING (extract(epoch FROM beat) * 1000000)::bigint",
                                name)));
}

std::optional<base::Timestamp> last_beat(const std::string& connection,
                                         const HeartbeatTable& table) {
  postgres::Session session(connection, table.database);
  const auto found =
      session
          .query(fmt::format("SELECT (extract(epoch FROM max(beat)) * 1000000)::bigint FROM {}",
                             quoted(session, table)))
          .at(0)
          .at(0);
  if (!found) return std::nullopt;
  return timestamp_of(*found);
}

}  // namespace holdfast::operations
