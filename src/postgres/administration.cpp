#include "postgres/administration.h"

#include "base/error.h"
#include "postgres/connection.h"

namespace holdfast::postgres {

namespace {

Lsn lsn_value(const std::string& text) {
  const auto lsn = parse_lsn(text);
  if (!lsn) base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" instead of an LSN", text);
  return *lsn;
}

}  // namespace

SettingState setting_state(Session& session, const std::string& name) {
  const Rows rows = session.query(
      "SELECT current_setting(name), source, coalesce(sourcefile || ':' || sourceline, ''), "
      "pending_restart FROM pg_settings WHERE name = $1",
      {name});
  if (rows.empty()) return {};
  const Row& row = rows.front();
  return {row.at(0).value_or(""), row.at(1).value_or(""), row.at(2).value_or(""), row.at(3) == "t"};
}

FileSettings file_settings(Session& session, const std::string& name) {
  FileSettings found;
  for (const Row& row : session.query(
           "SELECT sourcefile LIKE '%/postgresql.auto.conf', setting FROM pg_file_settings "
           "WHERE name = $1 ORDER BY seqno",
           {name})) {
    (row.at(0) == "t" ? found.automatic : found.other) = row.at(1);
  }
  return found;
}

std::string file_errors(Session& session) {
  return session.value(
      "SELECT coalesce(string_agg(coalesce(sourcefile || ':' || sourceline || ': ', '') || error, "
      "'; '), '') FROM pg_file_settings WHERE error IS NOT NULL "
      "AND error <> 'setting could not be applied'");
}

std::vector<std::string> recovery_targets(Session& session) {
  std::vector<std::string> found;
  for (const Row& row : session.query(
           "SELECT name || ' = ' || quote_literal(setting) || "
           "coalesce(' (' || sourcefile || ':' || sourceline || ')', '') "
           "FROM pg_settings WHERE name LIKE 'recovery\\_target%' AND setting <> boot_val "
           "AND name NOT IN ('recovery_target_action', 'recovery_target_inclusive') "
           "AND NOT pending_restart ORDER BY name")) {
    found.push_back(row.at(0).value_or(""));
  }
  return found;
}

Rows settings_on_command_line(Session& session) {
  return session.query(
      "SELECT name, current_setting(name) FROM pg_settings WHERE source = 'command line' "
      "ORDER BY name");
}

ControlFile control_data(Session& session) {
  const Rows rows = session.query(
      "SELECT s.system_identifier, s.pg_control_version, s.catalog_version_no, c.checkpoint_lsn, "
      "c.redo_lsn, c.timeline_id, r.min_recovery_end_lsn, r.min_recovery_end_timeline, "
      "i.database_block_size, i.blocks_per_segment, i.bytes_per_wal_segment, "
      "i.data_page_checksum_version FROM pg_control_system() s, pg_control_checkpoint() c, "
      "pg_control_recovery() r, pg_control_init() i");
  const auto cell = [&](std::size_t column) { return rows.at(0).at(column).value_or(""); };
  const auto u32 = [&](std::size_t column) { return number<std::uint32_t>(cell(column)); };
  ControlFile control;
  control.system_id = {number<std::uint64_t>(cell(0))};
  control.control_version = u32(1);
  control.catalog_version = u32(2);
  control.checkpoint = lsn_value(cell(3));
  control.redo = lsn_value(cell(4));
  control.timeline = {u32(5)};
  control.min_recovery_point = lsn_value(cell(6));
  control.min_recovery_timeline = {u32(7)};
  control.block_size = u32(8);
  control.relation_segment_blocks = u32(9);
  control.wal_segment_size = {number<std::uint64_t>(cell(10))};
  control.checksum_version = u32(11);
  return control;
}

base::Timestamp replayed_until(Session& session) {
  return base::Timestamp(base::Microseconds(number<std::int64_t>(session.value(
      "SELECT (extract(epoch FROM coalesce(pg_last_xact_replay_timestamp(), checkpoint_time)) * "
      "1000000)::bigint FROM pg_control_checkpoint()"))));
}

base::Bytes read_server_file(Session& session, const std::string& path) {
  return base::from_hex(
      session.value("SELECT encode(pg_read_binary_file($1::text), 'hex')", {path}));
}

std::vector<std::string> server_directory_names(Session& session, const std::string& directory) {
  std::vector<std::string> names;
  const Rows rows = session.query(
      "SELECT name FROM pg_ls_dir($1::text) AS names (name) ORDER BY name COLLATE \"C\"",
      {directory});
  for (const Row& row : rows) names.push_back(row.at(0).value_or(""));
  return names;
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
