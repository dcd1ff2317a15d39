// A restored server serves: whatever configuration the source had, it starts from its own
// directory, with the settings of the source, and nothing in it leads to the source.

#include <unistd.h>

#include <regex>

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int check_failed = 18;

/// As a user does it who types what `restore` prints.
Result shell(const std::string& line) {
  base::Command command;
  command.argv = {"sh", "-c", line};
  command.directory = "/";
  if (base::running_as_root()) command.user = postgres::server_user();
  const base::Outcome outcome = base::run(command);
  return {outcome.status, outcome.output, outcome.errors};
}

Result as_root(const std::vector<std::string>& argv) {
  base::Command command;
  command.argv = argv;
  command.directory = "/";
  const base::Outcome outcome = base::run(command);
  return {outcome.status, outcome.output, outcome.errors};
}

/// A server that was started by a line for the shell; stopped at the end.
class StartedServer {
 public:
  StartedServer(const std::string& line, fs::path directory) : directory_(std::move(directory)) {
    const Result result = shell(line);
    EXPECT_EQ(result.status, 0) << line << "\n"
                                << result.output << result.errors
                                << (fs::exists(directory_ / "server.log")
                                        ? text_of(directory_ / "server.log")
                                        : "");
  }
  ~StartedServer() {
    run_tool(installation(15), "pg_ctl",
             {"-D", directory_.string(), "-m", "immediate", "-w", "stop"});
  }
  StartedServer(const StartedServer&) = delete;
  StartedServer& operator=(const StartedServer&) = delete;

  /// By what its postmaster.pid says; Debian lets only the user postgres in.
  std::string sql(const std::string& statement) const {
    const std::string pid = text_of(directory_ / "postmaster.pid");
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < pid.size();) {
      const std::size_t end = pid.find('\n', at);
      lines.push_back(pid.substr(at, end - at));
      at = end + 1;
    }
    const Result result =
        run_tool(installation(15), "psql",
                 {"-XAtq", "-h", lines.at(4), "-p", lines.at(3), "-c", statement, "postgres"});
    EXPECT_EQ(result.status, 0) << result.errors;
    return result.output.substr(0, result.output.find_last_not_of('\n') + 1);
  }
  void await_end_of_recovery() const {
    eventually("recovery ends", [&] { return sql("SELECT pg_is_in_recovery()") == "f"; });
  }

 private:
  fs::path directory_;
};

/// What pg_createcluster makes, as it comes.
class Debian : public testing::Test {
 protected:
  Debian() : name_(fmt::format("holdfast_test_{}", ::getpid())) {}

  void SetUp() override {
    if (::getuid() != 0 || !fs::exists("/usr/bin/pg_createcluster")) {
      GTEST_SKIP() << "only root makes clusters of Debian's";
    }
    // Two that are made at once would get the same port.
    port_ = std::to_string(free_port());
    const Result made = as_root({"pg_createcluster", "-p", port_, "15", name_});
    ASSERT_EQ(made.status, 0) << made.errors;
  }
  void TearDown() override {
    server_.reset();
    as_root({"pg_dropcluster", "--stop", "15", name_});
  }

  fs::path etc() const { return fs::path("/etc/postgresql/15") / name_; }
  fs::path data() const { return fs::path("/var/lib/postgresql/15") / name_; }
  void add_to(const fs::path& file, const std::string& text) const {
    overwrite(file, (fs::exists(file) ? text_of(file) : "") + text);
    place_.give_to_server_user(file);
  }

  void start(const std::string& options = "") {
    server_ = std::make_unique<StartedServer>(
        fmt::format("/usr/lib/postgresql/15/bin/pg_ctl -D {} -s -w -l {} -o "
                    "'-c config_file={}/postgresql.conf{}' start",
                    data().string(), place_.path("source.log").string(), etc().string(), options),
        data());
  }
  void back_up() {
    if (!fs::exists(place_.configuration())) {
      place_.must({"init", "--connection",
                   fmt::format("host=/var/run/postgresql port={} dbname=postgres", port_),
                   "--data-directory", data().string(), "--repository",
                   "file://" + place_.repository().string()});
    }
    place_.must({"backup"});
  }
  std::unique_ptr<StartedServer> restored(const std::string& name) {
    const auto made = place_.must({"restore", place_.path(name).string(), "--json"}).json();
    notes_ = made.at("notes").dump();
    auto server =
        std::make_unique<StartedServer>(made.at("start").get<std::string>(), place_.path(name));
    server->await_end_of_recovery();
    return server;
  }
  /// All that is not of a place or of recovery.
  static std::string settings_of(const StartedServer& server) {
    return server.sql(
        "SELECT name || '=' || setting FROM pg_settings WHERE source IN ('configuration file') "
        "AND name !~ '^recovery_|^restore_command|^archive_|^primary_|^hot_standby$|"
        "^promote_trigger|^allow_in_place|_file$|^port$|^data_directory$' ORDER BY name");
  }

  Place place_;
  std::string name_;
  std::string port_;
  std::string notes_;
  std::unique_ptr<StartedServer> server_;
};

TEST_F(Debian, a_stock_cluster_is_restored_and_starts_beside_production) {
  start();
  server_->sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
  back_up();
  const std::string settings = settings_of(*server_);
  const auto copy = restored("restored");
  EXPECT_EQ(copy->sql("SELECT count(*) FROM t"), "1000");
  EXPECT_EQ(settings_of(*copy), settings);
  EXPECT_EQ(copy->sql("SHOW data_directory"), place_.path("restored").string());
  for (const char* file : {"config_file", "hba_file", "ident_file"}) {
    EXPECT_TRUE(
        copy->sql(fmt::format("SHOW {}", file)).starts_with(place_.path("restored").string()));
  }
  EXPECT_EQ(copy->sql("SHOW external_pid_file"), "");
  EXPECT_NE(copy->sql("SHOW port"), port_) << "production has it";
  EXPECT_EQ(server_->sql("SELECT count(*) FROM t"), "1000") << "production goes on";
  EXPECT_TRUE(fs::exists(fmt::format("/var/run/postgresql/15-{}.pid", name_)));
}

TEST_F(Debian, includes_of_every_kind_come_along_once_and_only_once) {
  const fs::path elsewhere = place_.path("elsewhere");
  fs::create_directories(elsewhere / "more");
  fs::create_directories(place_.path("other/more"));
  add_to(etc() / "conf.d/a.conf", "include 'nested.inc'\n# only a comment\n");
  add_to(etc() / "conf.d/nested.inc", "work_mem = '5MB'\n");
  add_to(etc() / "conf.d/comments.conf", "# nothing but this\n");
  add_to(elsewhere / "more/same.conf", "cluster_name = 'one'\n");
  add_to(place_.path("other/more/same.conf"), "vacuum_cost_limit = 333\n");
  add_to(elsewhere / "overridden.conf", "maintenance_work_mem = '77MB'\n");
  fs::create_symlink(elsewhere / "overridden.conf", elsewhere / "link.conf");
  add_to(data() / "inside.conf", "effective_cache_size = '100MB'\n");
  add_to(etc() / "postgresql.conf",
         fmt::format("include_dir = '{0}/more'\ninclude_dir '{1}/more'\ninclude = '{0}/link.conf'\n"
                     "include_if_exists = '{0}/never.conf'\ninclude = '{2}/inside.conf'\n"
                     "log_directory = '{0}'\n",
                     elsewhere.string(), place_.path("other").string(), data().string()));
  place_.give_to_server_user(elsewhere);
  start();
  server_->sql("ALTER SYSTEM SET maintenance_work_mem = '88MB'");
  server_->sql("SELECT pg_reload_conf()");
  server_->sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
  back_up();
  std::string settings = settings_of(*server_);
  settings = std::regex_replace(settings, std::regex("log_directory=[^\n]*"), "log_directory=log");
  server_.reset();  // production is gone
  fs::remove_all(elsewhere);
  fs::remove_all(place_.path("other"));
  fs::remove_all(etc() / "conf.d");

  auto copy = restored("restored");
  EXPECT_EQ(notes_, "[]");
  EXPECT_EQ(settings_of(*copy), settings);
  copy->sql("ALTER SYSTEM RESET maintenance_work_mem");
  copy->sql("SELECT pg_reload_conf()");
  eventually("the included file's setting is there",
             [&] { return copy->sql("SHOW maintenance_work_mem") == "77MB"; });
  copy->sql("ALTER SYSTEM SET maintenance_work_mem = '88MB'");

  // What was restored is backed up and restored like anything else, and does not grow.
  overwrite(place_.configuration(),
            std::regex_replace(
                std::regex_replace(text_of(place_.configuration()), std::regex(data().string()),
                                   place_.path("restored").string()),
                std::regex("port=[0-9]+"), "port=" + copy->sql("SHOW port")));
  const auto files_of = [](const fs::path& directory) {
    std::string all;
    for (const auto& [name, content] : tree_of(directory)) {
      if (name.find(".conf") != std::string::npos && name != "postgresql.auto.conf") {
        all += name + "\n" + content;
      }
    }
    return all;
  };
  back_up();
  copy.reset();
  const auto again = restored("again");
  EXPECT_EQ(settings_of(*again), settings);
  EXPECT_EQ(files_of(place_.path("again")), files_of(place_.path("restored")));
}

TEST_F(Debian, certificates_outside_come_along_and_what_cannot_is_said) {
  const fs::path tls = place_.path("tls");
  fs::create_directory(tls);
  ASSERT_EQ(as_root({"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
                     "-keyout", (tls / "key.pem").string(), "-out", (tls / "cert.pem").string()})
                .status,
            0);
  fs::permissions(tls / "key.pem", fs::perms(0600));
  place_.give_to_server_user(tls);
  place_.give_to_server_user(tls / "key.pem");
  add_to(etc() / "postgresql.conf",
         fmt::format("ssl = on\nssl_cert_file = '{0}/cert.pem'\nssl_key_file = '{0}/key.pem'\n",
                     tls.string()));
  start();
  back_up();
  {
    fs::rename(tls, place_.path("gone"));
    const auto copy = restored("restored");
    EXPECT_EQ(copy->sql("SHOW ssl"), "on");
    EXPECT_EQ(notes_, "[]");
    const fs::path key = place_.path("restored") / copy->sql("SHOW ssl_key_file");
    EXPECT_EQ(fs::status(key).permissions(), fs::perms(0600));
    fs::rename(place_.path("gone"), tls);
  }
  // A key that only its owner reads, and that is not us: only the server had it.
  fs::rename(tls / "key.pem", place_.path("key"));
  const Result backup = place_.holdfast({"backup"});
  EXPECT_EQ(backup.status, 0);
  EXPECT_NE(backup.errors.find("key.pem"), std::string::npos) << backup.errors;
  const Result doctor = place_.holdfast({"doctor"});
  EXPECT_NE((doctor.output + doctor.errors).find("key.pem"), std::string::npos);
  const auto copy = restored("without");
  EXPECT_EQ(copy->sql("SHOW ssl"), "off");
  EXPECT_NE(notes_.find("key.pem"), std::string::npos) << notes_;
}

/// Where no Debian is.
class Configuration : public testing::TestWithParam<int> {
 protected:
  Configuration() : source_(place_.cluster(GetParam())) {
    source_->sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
  }
  void add_setting(const std::string& line) const {
    const fs::path file = source_->data_directory() / "postgresql.conf";
    overwrite(file, text_of(file) + line + "\n");
  }
  void restart() {
    source_->stop();
    source_->start();
    point_configuration_at(place_, *source_);
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

TEST_P(Configuration, leftovers_of_other_recoveries_do_not_bend_a_restore) {
  for (const char* line :
       {"recovery_target = 'immediate'", "recovery_min_apply_delay = '1h'",
        "archive_cleanup_command = '/bin/false'", "recovery_end_command = '/bin/false'",
        "primary_conninfo = 'host=/nowhere'", "primary_slot_name = 'x'", "hot_standby = off",
        "recovery_target_inclusive = off", "recovery_target_action = 'shutdown'"}) {
    add_setting(line);
  }
  restart();
  place_.must({"backup"});
  source_->sql("INSERT INTO t SELECT generate_series(1001, 2000)");
  const std::string lsn = source_->sql("SELECT pg_current_wal_insert_lsn()");
  source_->sql("INSERT INTO t SELECT generate_series(2001, 3000)");
  place_.archive_all(*source_);
  EXPECT_EQ(place_.restored(*source_, "latest")->sql("SELECT count(*) FROM t"), "3000");
  EXPECT_EQ(place_.restored(*source_, "lsn", {"--to", lsn})->sql("SELECT count(*) FROM t"), "2000");
}

TEST_P(Configuration, limits_that_were_raised_after_the_backup_do_not_stop_replay) {
  place_.must({"backup"});
  source_->sql("ALTER SYSTEM SET max_connections = 250");
  source_->sql("ALTER SYSTEM SET max_locks_per_transaction = 128");
  source_->sql("ALTER SYSTEM SET max_prepared_transactions = 7");
  restart();
  source_->sql("INSERT INTO t SELECT generate_series(1001, 2000)");
  place_.archive_all(*source_);
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(restored->sql("SELECT pg_is_in_recovery()"), "f") << "replay is paused";
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t"), "2000");
}

TEST_P(Configuration, a_standby_of_a_restored_server_streams_once_doctor_has_mended_it) {
  place_.must({"backup"});
  place_.archive_all(*source_);
  auto restored = place_.restored(*source_, "restored");
  point_configuration_at(place_, *restored);
  EXPECT_EQ(place_.holdfast({"doctor"}).status, check_failed);
  place_.holdfast({"doctor", "--fix"});
  const Result after = place_.holdfast({"doctor"});
  EXPECT_EQ(after.output.find("recovery"), after.output.find("recovery window")) << after.output;
  for (const char* gone : {"restore_command", "recovery_target_action", "primary_conninfo",
                           "recovery_target_timeline = '1'"}) {
    EXPECT_EQ(text_of(place_.path("restored/postgresql.auto.conf")).find(gone), std::string::npos);
  }
  if (!restored->installation().program("pg_basebackup")) return;  // of a server alone
  ASSERT_EQ(run_tool(restored->installation(), "pg_basebackup",
                     {"-d", restored->connection(), "-D", place_.path("standby").string(), "-R",
                      "--checkpoint=fast", "--no-sync"})
                .status,
            0);
  const auto standby = adopt(restored->installation(), place_.path("standby"));
  standby->start();
  eventually("the standby streams", [&] {
    return restored->sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
           "1";
  });
  restored->sql("INSERT INTO t VALUES (0)");
  eventually("the row is there",
             [&] { return standby->sql("SELECT count(*) FROM t WHERE id = 0") == "1"; });
}

TEST_P(Configuration, doctor_says_fixed_only_of_what_is) {
  source_->stop();
  source_->start({{"archive_command", "/bin/true"}});
  point_configuration_at(place_, *source_);
  const Result fix = place_.holdfast({"doctor", "--fix"});
  EXPECT_EQ(fix.status, check_failed);
  EXPECT_EQ(fix.output.find("fixed "), std::string::npos) << fix.output;
  EXPECT_NE(fix.output.find("command line"), std::string::npos) << fix.output;

  // With an error in them the server takes of its files what it likes.
  source_->stop();
  add_setting("archive_command = '/bin/true'");
  restart();
  add_setting("work_mem = 'nonsense'");
  const Result broken = place_.holdfast({"doctor", "--fix"});
  EXPECT_EQ(broken.status, check_failed);
  EXPECT_EQ(broken.output.find("fixed ") != std::string::npos,
            source_->sql("SHOW archive_command") != "/bin/true")
      << broken.output;

  add_setting("work_mem = '4MB'");
  const Result mended = place_.holdfast({"doctor", "--fix"});
  EXPECT_NE(source_->sql("SHOW archive_command"), "/bin/true") << mended.output;
}

TEST_P(Configuration, of_a_data_directory_elsewhere_leads_nowhere_else) {
  add_setting(fmt::format("data_directory = '{}'\nlog_directory = '{}/log'\nlogging_collector = on",
                          source_->data_directory().string(), source_->data_directory().string()));
  restart();
  place_.must({"backup"});
  place_.archive_all(*source_);
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(restored->sql("SHOW data_directory"), place_.path("restored").string());
  EXPECT_EQ(restored->sql("SHOW log_directory"), "log");
  EXPECT_EQ(source_->sql("SELECT count(*) FROM t"), "1000");
}

TEST_P(Configuration, outside_comes_along_without_an_agent_if_the_role_may_read_it) {
  if (GetParam() < 15) return;
  source_->stop();
  const fs::path outside = place_.path("etc");
  fs::create_directories(outside / "conf.d");
  for (const char* name : {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"}) {
    fs::rename(source_->data_directory() / name, outside / name);
  }
  overwrite(outside / "conf.d/x.conf", "cluster_name = 'from outside'\n");
  overwrite(outside / "users", "postgres\n");
  overwrite(outside / "pg_hba.conf", "local all @users trust\nlocal replication all trust\n");
  overwrite(outside / "postgresql.conf",
            text_of(outside / "postgresql.conf") + fmt::format("include_dir = 'conf.d'\n"
                                                               "hba_file = '{0}/pg_hba.conf'\n"
                                                               "ident_file = '{0}/pg_ident.conf'\n",
                                                               outside.string()));
  source_->start({{"config_file", (outside / "postgresql.conf").string()}});
  point_configuration_at(place_, *source_);
  make_agentless(place_);
  place_.must({"backup"});
  place_.archive_all(*source_);
  fs::remove_all(outside);
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(restored->sql("SHOW cluster_name"), "from outside");
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t"), "1000") << "pg_hba.conf lets us in";
}

INSTANTIATE_TEST_SUITE_P(Versions, Configuration, testing::Values(15, 17),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace holdfast::tests
