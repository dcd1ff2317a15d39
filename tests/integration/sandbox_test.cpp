// What drill and extract start is held in its place, whatever is in the cluster that is brought
// back: its settings, its functions, its WAL. Nothing outside is written, nobody is reached, and no
// server is asked but the one that was started.

#include <sys/stat.h>

#include <map>

#include "faults/faults.h"
#include "harness/instant.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;

/// Each file below a directory, its size and when it was written: to see that nobody was there.
std::map<std::string, std::string> state_of(const fs::path& directory) {
  std::map<std::string, std::string> state;
  for (const auto& each : fs::recursive_directory_iterator(directory)) {
    struct stat status {};
    if (::lstat(each.path().c_str(), &status) != 0) continue;
    state[each.path().string()] =
        fmt::format("{} {} {}.{} {:o}", status.st_ino, status.st_size, status.st_mtim.tv_sec,
                    status.st_mtim.tv_nsec, status.st_mode);
  }
  return state;
}

int processes_named(const std::string& command_line) {
  int found = 0;
  for (const auto& process : fs::directory_iterator("/proc")) {
    const auto line = base::read_file(process.path() / "cmdline");
    if (!line) continue;
    std::string text(base::text(*line));
    std::ranges::replace(text, '\0', ' ');
    found += text.starts_with(command_line) ? 1 : 0;
  }
  return found;
}

class Sandbox : public testing::TestWithParam<int> {
 protected:
  explicit Sandbox(int major = 15) : source_(place_.cluster(major)) {
    configure(fmt::format("[drill]\ndirectory = \"{}\"", place_.path("scratch").string()));
    fs::create_directory(outside());
    place_.give_to_server_user(outside());
    source_->sql("CREATE TABLE t (id serial PRIMARY KEY, v text)");
    source_->sql("INSERT INTO t (v) SELECT md5(i::text) FROM generate_series(1, 1000) i");
  }
  fs::path outside() const { return place_.path("outside"); }
  void configure(const std::string& lines) const {
    overwrite(place_.configuration(), text_of(place_.configuration()) + "\n" + lines + "\n");
  }
  void set(const std::string& lines) const {
    const fs::path settings = source_->data_directory() / "postgresql.conf";
    overwrite(settings, text_of(settings) + lines + "\n");
  }
  void check_is(const std::string& name, const std::string& sql, const std::string& expect) const {
    configure(
        fmt::format("[[drill.check]]\nname = \"{}\"\ndatabase = \"postgres\"\n"
                    "sql = \"\"\"{}\"\"\"\nexpect = \"{}\"",
                    name, sql, expect));
  }
  json drill(const std::string& verdict, const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments{"drill", "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Result result = place_.holdfast(arguments);
    EXPECT_TRUE(result.output.starts_with("{")) << result.output << result.errors;
    json said = result.json();
    EXPECT_EQ(said.at("verdict"), verdict) << said.dump(2);
    return said;
  }
  json record_of(const json& said) const {
    return json::parse(text_of(said.at("record").get<std::string>()));
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

class SandboxOnEach : public Sandbox {
 protected:
  SandboxOnEach() : Sandbox(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Versions, SandboxOnEach, testing::Values(15, 17),
                         [](const auto& version) { return std::to_string(version.param); });

TEST_P(SandboxOnEach, lets_a_hostile_database_reach_nothing_and_says_what_it_tried) {
  source_->sql("CREATE TABLE attacks (number serial, statement text)");
  const std::string out = outside().string();
  const std::string production = source_->session().value(
      "SELECT replace($1, chr(39), chr(39) || chr(39))", {source_->connection()});
  const auto attack = [&](const std::string& statement) {
    source_->session().query("INSERT INTO attacks (statement) VALUES ($1)", {statement});
  };
  attack(fmt::format("COPY (SELECT 1) TO '{}/file'", out));
  attack(fmt::format("COPY (SELECT 1) TO PROGRAM 'cat > {}/program'", out));
  attack(fmt::format("COPY (SELECT 1) TO PROGRAM 'setsid touch {}/detached'", out));
  attack(fmt::format("COPY (SELECT 1) TO PROGRAM '(setsid tail -f {} &) ; exit 1'",
                     place_.configuration().string()));
  attack(fmt::format("COPY (SELECT 1) TO PROGRAM 'kill -TERM {}'", source_->server().pid()));
  attack(fmt::format("COPY t TO PROGRAM 'cat > {}'", (place_.repository() / "x").string()));
  attack(fmt::format("COPY t FROM PROGRAM 'chmod 777 {0} && touch {0} && rm -r {0}'", out));
  attack(fmt::format("SELECT lo_export(4711, '{}/object')", out));
  attack(fmt::format("SELECT dblink_exec('{}', 'DELETE FROM t')", production));
  attack("SELECT dblink_connect('host=127.0.0.1 port=1')");
  attack(
      fmt::format("CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p WITH (create_slot = "
                  "false, slot_name = s, enabled = false)",
                  production));
  source_->sql("SELECT lo_from_bytea(4711, 'x')");
  source_->sql("CREATE EXTENSION dblink");
  source_->sql("CREATE PUBLICATION p FOR TABLE t");
  source_->sql(
      "CREATE FUNCTION attempt(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
      "IF current_setting('cluster_name') <> 'holdfast scratch' THEN RETURN 'at home'; END IF; "
      "EXECUTE what; RETURN 'done: ' || what; "
      "EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; RETURN 'refused'; END $$");
  // Nobody needs to call it: amcheck looks at an index by computing what is in it.
  source_->sql(
      "CREATE FUNCTION by_itself(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
      "PERFORM public.attempt('COPY (SELECT 1) TO ''" +
      out + "/index'''); RETURN v; END $$");
  source_->sql("CREATE TABLE few AS SELECT v FROM t LIMIT 2");
  source_->sql("CREATE INDEX ON few (by_itself(v))");
  set(
      fmt::format("logging_collector = on\nlog_directory = '{0}'\nexternal_pid_file = '{0}/pid'\n"
                  "archive_command = 'touch {0}/archived'\n"
                  "archive_cleanup_command = 'touch {0}/cleaned'\n"
                  "recovery_end_command = 'touch {0}/ended'\n"
                  "unix_socket_directories = '{0}'\nunix_socket_permissions = 0777\n"
                  "listen_addresses = '*'\nssl = on\nssl_passphrase_command = 'touch {0}/ssl'\n"
                  "primary_conninfo = {1}\ndynamic_library_path = '{0}'\n"
                  "temp_tablespaces = 'nowhere'\n",
                  out, postgres::quote_setting(source_->connection())));
  check_is("what was done",
           "SELECT coalesce(string_agg(attempt(statement), '; '), '') FROM attacks",
           "refused; refused; refused; refused; refused; refused; refused; refused; refused; "
           "refused; refused");
  place_.must({"backup"});
  const auto before = state_of(outside());
  struct stat mode_before {};
  ASSERT_EQ(::stat(outside().c_str(), &mode_before), 0);

  const json said = drill("pass");
  EXPECT_EQ(state_of(outside()), before);
  struct stat mode {};
  ASSERT_EQ(::stat(outside().c_str(), &mode), 0);
  EXPECT_EQ(mode.st_mode, mode_before.st_mode);
  EXPECT_FALSE(fs::exists(place_.repository() / "x"));
  EXPECT_EQ(processes_named("tail -f " + place_.configuration().string()), 0) << "it outlives it";
  EXPECT_EQ(source_->sql("SELECT count(*) FROM t"), "1000") << "production runs, and has its rows";
  const std::string refused = said.at("refused").dump();
  for (const char* what : {"outside/file", "outside/program", "outside/detached", "outside/object",
                           "outside/index", "could not connect"}) {
    EXPECT_NE(refused.find(what), std::string::npos) << what << ": " << said.dump(2);
  }
  EXPECT_EQ(record_of(said).at("facts").at("sandbox"), "held by the kernel");
  EXPECT_TRUE(record_of(said).at("facts").contains("refused by the sandbox"));
  EXPECT_EQ(record_of(said).dump().find("outside"), std::string::npos) << "paths may be values";
  if (!source_->installation().program("pg_dump")) return;
  // As root, where the server is another user, and its files are mounted.
  const Result taken = holdfast_as_self(
      place_, {"extract", "few", "--to", "immediate", "--output", place_.path("few.sql").string()});
  EXPECT_EQ(taken.status, 0) << taken.errors;
  EXPECT_EQ(state_of(outside()), before);
}

TEST_F(Sandbox, never_touches_a_production_that_the_configuration_names) {
  set(fmt::format("data_directory = '{}'", source_->data_directory().string()));
  place_.must({"backup"});
  source_->sql("DELETE FROM t WHERE id > 10");
  place_.archive_all(*source_);
  source_->stop();
  const auto before = state_of(source_->data_directory());
  const fs::path file = place_.path("t.sql");
  const json taken =
      place_.must({"extract", "t", "--to", "immediate", "--output", file.string(), "--json"})
          .json();
  EXPECT_EQ(taken.at("tables").at(0).at("rows"), 1000) << "of that moment, not of today";
  drill("pass");
  EXPECT_EQ(state_of(source_->data_directory()), before);
}

TEST_F(Sandbox, keeps_replay_out_of_a_tablespace_that_was_made_after_the_backup) {
  place_.must({"backup"});
  source_->sql(fmt::format("CREATE TABLESPACE later LOCATION '{}'", outside().string()));
  source_->sql("CREATE TABLE u TABLESPACE later AS SELECT * FROM t");
  place_.archive_all(*source_);
  source_->sql("UPDATE u SET v = 'committed after what a drill replays'");
  source_->sql("CHECKPOINT");
  source_->stop(postgres::Server::StopMode::immediate);
  const auto before = state_of(outside());
  place_.holdfast({"drill"});
  place_.holdfast({"extract", "t", "--output", place_.path("t.sql").string()});
  EXPECT_EQ(state_of(outside()), before);
}

TEST_P(SandboxOnEach, assumes_no_names_and_is_stopped_by_nothing_that_a_cluster_forbids) {
  source_->sql("CREATE DATABASE \"the only one\"");
  source_->sql("CREATE ROLE \"Mr. Boss\" SUPERUSER LOGIN");
  postgres::Session boss(source_->server().connection("the only one", "Mr. Boss"));
  boss.run_script(
      "CREATE TABLE public.here AS SELECT generate_series(1, 7) AS x;"
      "CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS "
      "$$ BEGIN RAISE EXCEPTION 'no DDL here'; END $$;"
      "CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION public.forbid();"
      "ALTER EVENT TRIGGER forbid ENABLE ALWAYS;"
      "ALTER DATABASE \"the only one\" SET default_transaction_read_only = on;"
      "ALTER ROLE \"Mr. Boss\" SET statement_timeout = '1ms';"
      "SET default_transaction_read_only = off");
  boss.query("DROP DATABASE postgres WITH (FORCE)");
  boss.query("ALTER ROLE postgres RENAME TO \"first of all\"");
  boss.query("ALTER ROLE \"first of all\" NOLOGIN");
  std::string configuration = text_of(place_.configuration());
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"user=postgres", "user='Mr. Boss'"},
        {"dbname=postgres", "dbname='the only one'"}}) {
    configuration.replace(configuration.find(from), from.size(), to);
  }
  overwrite(place_.configuration(), configuration);
  configure(
      "[[drill.check]]\nname = \"unqualified\"\ndatabase = \"the only one\"\n"
      "sql = \"SELECT count(*) FROM here\"\nexpect = \"7\"");
  place_.must({"backup"});
  drill("pass");
  boss.query("ALTER ROLE \"Mr. Boss\" SET role = 'pg_monitor'");
  boss.query("ALTER ROLE \"Mr. Boss\" NOLOGIN");
  const std::string segment = boss.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
  boss.query("SELECT pg_switch_wal()");
  await([&] { return fs::exists(system_directory(place_) / "wal/00000001" / segment); },
        "nobody may log in any more, says the archive");
  const json said = drill("pass");
  for (const json& check : said.at("checks"))
    EXPECT_EQ(check.at("outcome"), "passed") << said.dump(2);
}

TEST_F(Sandbox, ends_at_once_with_the_last_words_of_who_cannot_start) {
  set("shared_buffers = '1MB'\nmax_connections = 1000000\n");
  place_.must({"backup"});
  const auto begun = std::chrono::steady_clock::now();
  const json said = drill("fail");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::minutes(1));
  EXPECT_NE(record_of(said).at("notes").get<std::string>().find("FATAL"), std::string::npos)
      << said.dump(2);
}

TEST_F(Sandbox, lets_a_key_command_connect_and_says_so) {
  std::string configuration = text_of(place_.configuration());
  const std::size_t at = configuration.find("key_file = \"");
  ASSERT_NE(at, std::string::npos) << configuration;
  configuration.replace(at, 12, "key_command = \"cd " + place_.path().string() + "; cat ");
  overwrite(place_.configuration(), configuration);
  place_.must({"backup"});
  const json said = drill("pass");
  EXPECT_NE(said.at("sandbox_gaps").dump().find("key_command"), std::string::npos) << said.dump(2);
  EXPECT_NE(record_of(said).at("facts").at("sandbox").dump().find("key_command"),
            std::string::npos);
}

TEST_F(Sandbox, leaves_no_record_of_a_backup_that_does_not_exist) {
  place_.must({"backup"});
  const Result result = place_.holdfast({"drill", "--backup", "nosuch"});
  EXPECT_EQ(result.status, status_of(base::Code::not_found)) << result.errors;
  EXPECT_NE(result.errors.find("nosuch"), std::string::npos) << result.errors;
  EXPECT_TRUE(files_below(place_.path("docs/audit")).empty());
  EXPECT_TRUE(files_below(place_.path("scratch")).empty());
}

TEST_F(Sandbox, as_root_leaves_nothing_that_its_owner_cannot_go_on_with) {
  place_.must({"backup"});
  const Result as_root = holdfast_as_self(place_, {"drill"});
  EXPECT_EQ(as_root.status, 0) << as_root.output << as_root.errors;
  drill("pass");
  place_.must({"drill", "verify"});
  const std::string listed = place_.must({"list", "--json"}).output;
  EXPECT_EQ(listed.find("instant restore in"), std::string::npos) << "a pin stays: " << listed;
}

}  // namespace
}  // namespace holdfast::tests
