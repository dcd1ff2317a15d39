#include "postgres/scratch_settings.h"

#include <array>

#include "base/process.h"

namespace holdfast::postgres {

namespace {

struct Pin {
  std::string_view name;
  std::string_view value;
};

constexpr auto pins = std::to_array<Pin>({
    // Places.
    {"external_pid_file", ""},
    {"log_directory", "log"},
    {"logging_collector", "off"},
    {"log_destination", "stderr"},
    {"stats_temp_directory", "pg_stat_tmp"},  // up to 14
    {"temp_tablespaces", ""},
    {"default_tablespace", ""},
    // What /dev/shm and the like hold is everybody's; this is below the data directory.
    {"dynamic_shared_memory_type", "mmap"},
    {"shared_memory_type", "mmap"},
    {"huge_pages", "off"},
    // Commands and libraries.
    {"archive_mode", "off"},
    {"archive_command", ""},
    {"archive_library", ""},
    {"archive_cleanup_command", ""},
    {"recovery_end_command", ""},
    {"ssl_passphrase_command", ""},
    {"session_preload_libraries", ""},
    {"local_preload_libraries", ""},
    {"dynamic_library_path", "$libdir"},
    {"extension_control_path", "$system"},
    {"extension_destdir", ""},  // Debian's own
    {"oauth_validator_libraries", ""},
    {"jit_provider", "llvmjit"},
    {"jit", "off"},
    // Other servers, and who could ask this one.
    {"unix_socket_group", ""},
    {"unix_socket_permissions", "0700"},
    {"bonjour", "off"},
    {"bonjour_name", ""},
    {"ssl", "off"},
    {"krb_server_keyfile", ""},
    {"primary_conninfo", ""},
    {"primary_slot_name", ""},
    {"synchronous_standby_names", ""},
    {"synchronized_standby_slots", ""},
    {"sync_replication_slots", "off"},
    {"max_logical_replication_workers", "0"},
    {"promote_trigger_file", ""},  // up to 15
    // No standby of anybody: promoted at its target, it is asked questions only then. And so it
    // does not matter how small this machine's limits are against those of the source.
    {"hot_standby", "off"},
    {"recovery_min_apply_delay", "0"},
    // What it would do by itself.
    {"autovacuum", "off"},
    {"event_triggers", "off"},
    {"summarize_wal", "off"},
    // A server that dies while it is looked at is a finding: it must not hide that.
    {"restart_after_crash", "off"},
    // Rows of the cluster have no business in the log, nor have the details of errors.
    {"log_min_messages", "warning"},
    {"log_statement", "none"},
    {"log_min_duration_statement", "-1"},
    {"log_min_error_statement", "panic"},
    {"log_error_verbosity", "terse"},
    {"log_line_prefix", "%m [%p] "},
    {"lc_messages", "C"},
    {"cluster_name", "holdfast scratch"},
    // What the source's machine had, this one may lack.
    {"shared_buffers", "256MB"},
    {"maintenance_work_mem", "128MB"},
    {"io_method", "worker"},
    {"default_transaction_read_only", "off"},
    {"idle_in_transaction_session_timeout", "0"},
});

constexpr auto pins_to_throw_away = std::to_array<Pin>({
    {"fsync", "off"},
    {"full_page_writes", "off"},
    {"synchronous_commit", "off"},
    {"max_wal_size", "4GB"},
});

/// What recovery is told; all that is not said is empty or this. Targets come last: PostgreSQL
/// takes an empty one that follows another for a second target.
constexpr auto recovery_pins = std::to_array<Pin>({
    {"restore_command", ""},
    {"recovery_target_action", "promote"},
    {"recovery_target_timeline", "latest"},
    {"recovery_target_inclusive", "on"},
});
constexpr std::array<std::string_view, 5> targets = {"recovery_target", "recovery_target_lsn",
                                                     "recovery_target_name", "recovery_target_time",
                                                     "recovery_target_xid"};

constexpr std::string_view by_server = "postgres::Server says it, or ScratchServer";
constexpr std::string_view of_ssl = "ssl is off";
constexpr std::string_view words = "how things are written; nothing is opened by it";
constexpr auto notes = std::to_array<SettingNote>({
    {"data_directory", by_server},
    {"hba_file", by_server},
    {"ident_file", by_server},
    {"listen_addresses", by_server},
    {"unix_socket_directories", by_server},
    {"shared_preload_libraries", by_server},
    {"config_file", "only a command line can name it"},
    {"ssl_ca_file", of_ssl},
    {"ssl_cert_file", of_ssl},
    {"ssl_ciphers", of_ssl},
    {"ssl_crl_dir", of_ssl},
    {"ssl_crl_file", of_ssl},
    {"ssl_dh_params_file", of_ssl},
    {"ssl_ecdh_curve", of_ssl},
    {"ssl_groups", of_ssl},
    {"ssl_key_file", of_ssl},
    {"ssl_tls13_ciphers", of_ssl},
    {"log_filename", "logging_collector is off"},
    {"syslog_ident", "log_destination is stderr"},
    {"event_source", "Windows"},
    {"DateStyle", words},
    {"TimeZone", words},
    {"application_name", words},
    {"client_encoding", words},
    {"default_text_search_config", words},
    {"lc_monetary", words},
    {"lc_numeric", words},
    {"lc_time", words},
    {"log_timezone", words},
    {"search_path", words},
    {"timezone_abbreviations", "a plain name of a file of PostgreSQL's own, which is read"},
    {"backtrace_functions", "more is logged"},
    {"log_connections", "more is logged"},
    {"wal_consistency_checking", "more is logged"},
    {"debug_io_direct", "how its own files are read"},
    {"default_table_access_method", "what is installed in the database"},
    {"createrole_self_grant", "roles of its own"},
    {"restrict_nonsystem_relation_kind", "less is allowed"},
    {"output_plugin_libraries", "nobody can replicate from it"},
});

}  // namespace

std::set<std::string> known_settings(const Installation& installation) {
  base::Command command;
  command.argv = {(installation.bin / "postgres").string(), "--describe-config"};
  command.directory = "/";
  const std::string all = base::run_checked(command);
  std::set<std::string> names;
  for (std::string_view left = all; !left.empty();) {
    names.emplace(left.substr(0, left.find('\t')));
    left.remove_prefix(std::min(left.find('\n'), left.size() - 1) + 1);
  }
  return names;
}

Settings scratch_settings(const std::set<std::string>& known, std::string_view recovery,
                          bool durable) {
  Settings settings;
  const auto add = [&](std::string_view name, std::string_view value) {
    if (known.contains(std::string(name))) settings.emplace_back(name, value);
  };
  for (const Pin& pin : pins) add(pin.name, pin.value);
  if (!durable) {
    for (const Pin& pin : pins_to_throw_away) add(pin.name, pin.value);
  }
  for (const Pin& pin : recovery_pins) {
    add(pin.name, find_setting(recovery, pin.name).value_or(std::string(pin.value)));
  }
  for (const std::string_view name : targets) add(name, "");
  for (const std::string_view name : targets) {
    const auto target = find_setting(recovery, name);
    if (target && !target->empty()) add(name, *target);
  }
  return settings;
}

std::vector<SettingNote> scratch_setting_notes() {
  std::vector<SettingNote> all(notes.begin(), notes.end());
  for (const Pin& pin : pins) all.push_back({pin.name, {}});
  for (const Pin& pin : recovery_pins) all.push_back({pin.name, {}});
  for (const std::string_view name : targets) all.push_back({name, {}});
  return all;
}

}  // namespace holdfast::postgres
