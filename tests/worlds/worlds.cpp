// The worlds. Each is a machine as people have them; what is not said is as usual.

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "worlds/life.h"

namespace holdfast::tests::worlds {

namespace {

/// Production's tablespaces are where they were, and must not be written to.
const Refusal occupied{base::Code::refused, "--tablespace"};

void give(const Life& life, const fs::path& path) {
  life.place.give_to_server_user(path);
}

void write(const Life& life, const fs::path& file, const std::string& text) {
  std::ofstream(file) << text;
  give(life, file);
}

void link(const Life& life, const fs::path& target, const fs::path& name) {
  fs::create_symlink(target, name);
  give(life, name);
}

/// A tablespace with a table in it. Restores put it beside theirs.
void make_tablespace(Life& life, const std::string& name, const fs::path& location) {
  life.sql(fmt::format("CREATE TABLESPACE {} LOCATION '{}'", name, location.string()));
  life.sql(fmt::format(
      "CREATE TABLE in_{0} TABLESPACE {0} AS SELECT g FROM generate_series(1, 2000) g", name));
  life.tablespaces[location] = name;
}

void two_tablespaces(Life& life) {
  make_tablespace(life, "one", life.directory("spaces/one"));
  make_tablespace(life, "two", life.directory("spaces/two"));
}

void moved_tablespace(Life& life) {
  const std::string oid = life.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'ts'");
  life.stop();
  fs::rename(life.path("spaces/old"), life.path("spaces/new"));
  fs::remove(life.data / "pg_tblspc" / oid);
  link(life, life.path("spaces/new"), life.data / "pg_tblspc" / oid);
  life.production.push_back(life.path("spaces/new"));
  life.start();
}

/// postgresql.conf, pg_hba.conf and pg_ident.conf elsewhere, as distributions have it.
void split(Life& life) {
  const fs::path etc = life.directory("etc", 0755);
  for (const char* name : {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"}) {
    fs::rename(life.data / name, etc / name);
  }
  life.configuration = etc;
  life.directory("etc/conf.d", 0755);
  life.add_settings(fmt::format(
      "data_directory = '{}'\nhba_file = '{}'\nident_file = '{}'\ninclude_dir = 'conf.d'",
      life.data.string(), (etc / "pg_hba.conf").string(), (etc / "pg_ident.conf").string()));
}

void absolute(Life& life) {
  life.directory("logs");
  life.directory("run");
  life.busy = {life.path("logs")};
  life.add_settings(fmt::format(
      "data_directory = '{0}'\nhba_file = '{0}/pg_hba.conf'\nident_file = '{0}/pg_ident.conf'\n"
      "external_pid_file = '{1}/pid'\nlogging_collector = on\nlog_directory = '{2}'",
      life.data.string(), life.path("run").string(), life.path("logs").string()));
}

void includes(Life& life) {
  const fs::path etc = life.directory("etc", 0755);
  life.directory("etc/empty.d", 0755);
  write(life, etc / "comments.conf", "# work_mem = 8MB\n");
  write(life, etc / "effect.conf", "work_mem = 8MB\ninclude_if_exists 'absent.conf'\n");
  write(life, life.data / "inside.conf", "maintenance_work_mem = 32MB\n");
  life.add_settings(fmt::format(
      "include_dir = '{0}/empty.d'\ninclude '{0}/comments.conf'\ninclude '{0}/effect.conf'\n"
      "include 'inside.conf'\ninclude_if_exists '{0}/absent.conf'",
      etc.string()));
}

void certificates(Life& life) {
  const fs::path etc = life.directory("ssl");
  base::Command make;
  make.argv = {"openssl", "req",   "-x509",   "-newkey",   "rsa:2048", "-nodes",
               "-subj",   "/CN=x", "-keyout", etc / "key", "-out",     etc / "certificate"};
  base::run_checked(make);
  for (const char* name : {"key", "certificate"}) {
    give(life, etc / name);
    ::chmod((etc / name).c_str(), 0600);
  }
  life.add_settings(fmt::format(
      "ssl = on\nssl_cert_file = '{0}/certificate'\nssl_key_file = '{0}/key'", etc.string()));
}

void links(Life& life) {
  life.directory("disks/one/data");
  life.directory("disks/two");
  link(life, life.path("disks/one/data"), life.data);
  life.initdb = {"--waldir", life.path("disks/two/wal")};
  life.busy = {life.path("disks/two/wal")};
  life.production = {life.path("disks/one/data"), life.path("disks/two/wal")};
}

void mount_points(Life& life) {
  life.mount_memory(life.directory("data"));
  life.mount_memory(life.directory("wal"));
  life.initdb = {"--waldir", life.path("wal")};
  life.busy = {life.path("wal")};
  life.production = {life.path("wal")};
}

void tablespace_on_a_mount(Life& life) {
  life.mount_memory(life.directory("spaces/mounted"));
  make_tablespace(life, "mounted", life.path("spaces/mounted"));
}

void strange_encodings(Life& life) {
  life.sql(
      "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0");
  life.sql("CREATE TABLE t AS SELECT convert_from('\\xe4f6fc', 'LATIN1') AS v", "latin");
  life.sql(
      "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE "
      "template0");
  life.sql("CREATE TABLE t AS SELECT 1 AS v", "bytes");
}

void another_superuser(Life& life) {
  life.sql("CREATE ROLE dba SUPERUSER LOGIN REPLICATION");
  std::string text = text_of(life.place.configuration());
  const std::string user = "user='boot'";
  const std::size_t at = text.find(user);
  if (at == std::string::npos) throw std::runtime_error("no user in " + text);
  overwrite(life.place.configuration(), text.replace(at, user.size(), "user='dba'"));
  life.superuser = "dba";
  life.sql("ALTER ROLE boot NOLOGIN");
}

void forbidden_ddl(Life& life) {
  for (const char* database : {"template1", "postgres", "app"}) {
    life.sql(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no DDL here'; END $$",
        database);
    life.sql("CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()", database);
  }
}

void on_the_command_line(Life& life) {
  life.port_in_files = false;
  const std::string archive =
      fmt::format("\"{}\" --config \"{}\" wal push \"%p\"", holdfast_binary().string(),
                  life.place.configuration().string());
  life.server_options = fmt::format("-p {} -c max_connections=40 -c archive_command={}",
                                    life.port(), quoted(archive));
}

void leftovers(Life& life) {
  for (const char* name : {"recovery.done", "backup_label.old", "tablespace_map.old",
                           "standby.signal.bak", "postgresql.conf.bak"}) {
    write(life, life.data / name, "old\n");
  }
  life.add_settings(fmt::format(
      "restore_command = 'false'\nrecovery_target = 'immediate'\n"
      "recovery_target_action = 'shutdown'\nrecovery_end_command = 'touch {0}/touched'\n"
      "archive_cleanup_command = 'touch {0}/touched'\nprimary_conninfo = 'host=/nowhere'\n"
      "promote_trigger_file = '{0}/letter'\nrecovery_min_apply_delay = '1h'\nhot_standby = on",
      life.path("home").string()));
}

/// A copy of the same system, or a standby of it, that runs beside it with settings of its own.
void beside(Life& life, bool as_standby) {
  const fs::path copy = life.path("copy");
  std::vector<std::string> arguments = {"-d",   life.connection(), "-D", copy, "-c",
                                        "fast", "--no-sync"};
  if (as_standby) arguments.emplace_back("-R");
  const Result copied = run_tool(life.pg(), "pg_basebackup", arguments);
  if (copied.status != 0) throw std::runtime_error(copied.errors);
  auto cluster = adopt(life.pg(), copy);
  cluster->start({{"archive_mode", "off"}});
  life.neighbours["copy"] = std::move(cluster);
}

void strangers(Life& life) {
  ::mkfifo((life.data / "pipe").c_str(), 0600);
  give(life, life.data / "pipe");
  link(life, life.path("home"), life.data / "link");
  link(life, "/nowhere/at/all", life.data / "dangling");
  fs::create_directory(life.data / "empty");
  give(life, life.data / "empty");
  write(life, life.data / "with\nnewline and \"ü\"", "mine\n");
}

}  // namespace

const std::vector<World>& all_worlds() {
  static const std::vector<World> all = {
      {.name = "plain", .in_short_suite = true},
      {.name = "version17",
       .plan = [](Life& life) { life.major = 17; },
       .configured = [](Life& life) { life.add_settings("summarize_wal = on"); }},
      {.name = "debian", .needs_root = true, .plan = [](Life& life) { life.debian = true; }},
      {.name = "split", .in_short_suite = true, .configured = split},
      {.name = "absolute", .configured = absolute},
      {.name = "includes", .configured = includes},
      {.name = "certificates", .configured = certificates},
      {.name = "tablespaces",
       .in_short_suite = true,
       .started = two_tablespaces,
       .refuses = {{"restore", occupied}}},
      {.name = "tablespace_later",
       .later = [](Life& life) { make_tablespace(life, "late", life.directory("spaces/late")); },
       .refuses = {{"restore", occupied}}},
      {.name = "tablespace_moved",
       .started = [](Life& life) { make_tablespace(life, "ts", life.directory("spaces/old")); },
       .later = moved_tablespace},
      {.name = "tablespace_dropped",
       .started = [](Life& life) { make_tablespace(life, "ts", life.directory("spaces/gone")); },
       .later =
           [](Life& life) {
             life.sql("DROP TABLE in_ts");
             life.sql("DROP TABLESPACE ts");
           }},
      {.name = "tablespace_in_place",
       .configured = [](Life& life) { life.add_settings("allow_in_place_tablespaces = on"); },
       .started =
           [](Life& life) {
             life.sql("CREATE TABLESPACE inside LOCATION ''");
             life.sql("CREATE TABLE t TABLESPACE inside AS SELECT 1 AS v");
           }},
      {.name = "tablespace_on_mount",
       .needs_root = true,
       .started = tablespace_on_a_mount,
       .refuses = {{"restore", occupied}}},
      {.name = "links", .plan = links},
      {.name = "mount_points", .needs_root = true, .plan = mount_points},
      {.name = "group_access", .plan = [](Life& life) { life.initdb = {"-g"}; }},
      {.name = "encodings",
       .plan =
           [](Life& life) {
             life.initdb = {"--locale-provider=icu", "--icu-locale=de", "-E", "UTF8",
                            "--locale=C.utf8"};
           },
       .started = strange_encodings},
      {.name = "names",
       .in_short_suite = true,
       .plan =
           [](Life& life) {
             life.data = life.path("prod's data of ü");
             life.database = "my \"app\"'s ü";
             life.superuser = "Big Boss";
             life.entry = life.database;
           }},
      {.name = "no_postgres",
       .plan =
           [](Life& life) {
             life.superuser = "admin";
             life.entry = "app";
           },
       .started = [](Life& life) { life.sql("DROP DATABASE postgres"); }},
      {.name = "locked_out",
       .plan = [](Life& life) { life.superuser = "boot"; },
       .started = another_superuser},
      {.name = "command_line", .plan = on_the_command_line},
      {.name = "forbidden_ddl", .started = forbidden_ddl},
      {.name = "preload",
       .configured =
           [](Life& life) {
             life.add_settings("shared_preload_libraries = 'pg_stat_statements,auto_explain'");
           },
       .started = [](Life& life) { life.sql("CREATE EXTENSION pg_stat_statements"); }},
      {.name = "leftovers", .configured = leftovers},
      {.name = "copy_beside", .started = [](Life& life) { beside(life, false); }},
      {.name = "standby_beside", .started = [](Life& life) { beside(life, true); }},
      {.name = "raised_limits",
       .later =
           [](Life& life) {
             life.stop();
             life.add_settings("max_connections = 300\nmax_prepared_transactions = 7");
             life.start();
           }},
      {.name = "stopped",
       .plan = [](Life& life) { life.is_stopped = true; },
       .configured = absolute,
       .started = two_tablespaces,
       .refuses = {{"restore", occupied}}},
      {.name = "strangers", .configured = strangers},
      {.name = "small_segments",
       .plan = [](Life& life) { life.initdb = {"--wal-segsize=1"}; },
       .configured = [](Life& life) { life.add_settings("wal_log_hints = off"); }},
  };
  return all;
}

}  // namespace holdfast::tests::worlds
