#include "postgres/administration.h"

#include "base/error.h"

namespace holdfast::postgres {

namespace {

Lsn lsn_value(const std::string& text) {
  const auto lsn = parse_lsn(text);
  if (!lsn) base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" instead of an LSN", text);
  return *lsn;
}

}  // namespace

std::vector<std::string> configuration_files(Session& session) {
  std::vector<std::string> files;
  const Rows rows = session.query(
      "SELECT DISTINCT f FROM ("
      "SELECT sourcefile AS f FROM pg_settings UNION ALL "
      "SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')"
      ") AS files WHERE f LIKE '/%' ORDER BY f");
  for (const Row& row : rows) files.push_back(*row.at(0));
  return files;
}

void alter_system(Session& session, const std::string& name, const std::string& value) {
  // A utility statement takes no parameters: the server quotes.
  const std::string statement =
      session.value("SELECT format('ALTER SYSTEM SET %I = %L', $1::text, $2::text)", {name, value});
  session.query(statement);
}

void reset_system_setting(Session& session, const std::string& name) {
  session.query(session.value("SELECT format('ALTER SYSTEM RESET %I', $1::text)", {name}));
}

void reload(Session& session) {
  session.query("SELECT pg_reload_conf()");
}

bool is_superuser(Session& session) {
  return session.setting("is_superuser") == "on";
}

ArchiverStatus archiver_status(Session& session) {
  const Row row = session
                      .query(
                          "SELECT archived_count, failed_count, "
                          "coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), "
                          "false), coalesce(last_failed_wal, '') FROM pg_stat_archiver")
                      .at(0);
  return {std::stoull(row.at(0).value_or("0")), std::stoull(row.at(1).value_or("0")),
          row.at(2) == "t", row.at(3).value_or("")};
}

Lsn switch_wal(Session& session) {
  return lsn_value(session.value("SELECT pg_switch_wal()"));
}

Lsn create_restore_point(Session& session, const std::string& name) {
  return lsn_value(session.value("SELECT pg_create_restore_point($1)", {name}));
}

}  // namespace holdfast::postgres
