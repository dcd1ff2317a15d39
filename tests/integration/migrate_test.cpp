// `migrate`: no command without a proven way back, and one command back.

#include <signal.h>

#include "base/error.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::Code;

int status_of(Code code) {
  return base::info(code).exit_status;
}

class Migrate : public ::testing::TestWithParam<int> {
 protected:
  Migrate() : cluster_(place_.cluster(GetParam())) {
    cluster_->sql(
        "CREATE TABLE customers AS SELECT i AS id, md5(i::text) AS mail "
        "FROM generate_series(1, 5000) i");
  }
  /// A migration by psql that drops the column that is needed.
  std::vector<std::string> dropping(std::vector<std::string> options = {}) const {
    std::vector<std::string> line = {"migrate"};
    line.insert(line.end(), options.begin(), options.end());
    const std::vector<std::string> command = {"--",
                                              "/usr/lib/postgresql/15/bin/psql",
                                              "-qX",
                                              "-v",
                                              "ON_ERROR_STOP=1",
                                              "-d",
                                              cluster_->connection(),
                                              "-c",
                                              "ALTER TABLE customers DROP COLUMN mail",
                                              "-c",
                                              "SELECT mail FROM customers"};
    line.insert(line.end(), command.begin(), command.end());
    return line;
  }
  std::vector<std::string> touching() const { return {"migrate", "--", "touch", ran().string()}; }
  fs::path ran() const { return place_.path("ran"); }
  nlohmann::json journal() const {
    return place_.must({"migrate", "--list", "--json"}).json().at("migrations");
  }
  /// Of each pin the backup that it holds.
  std::vector<std::string> pins() const {
    std::vector<std::string> held;
    const nlohmann::json listed = place_.must({"list", "--json"}).json();
    for (const auto& backup : listed.at("backups")) {
      for (std::size_t i = 0; i < backup.at("pins").size(); ++i) held.push_back(backup.at("id"));
    }
    return held;
  }
  void expect_not_started(const Result& result, Code code) const {
    EXPECT_EQ(result.status, status_of(code)) << result.errors;
    EXPECT_NE(result.errors.find("the command was not started"), std::string::npos)
        << result.errors;
    EXPECT_FALSE(fs::exists(ran()));
    EXPECT_TRUE(journal().empty());
    EXPECT_TRUE(pins().empty()) << "the snapshot is kept for nothing";
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

INSTANTIATE_TEST_SUITE_P(On, Migrate, ::testing::Values(15, 17),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(Migrate, that_drops_the_wrong_column_is_undone_by_the_command_that_it_prints) {
  const std::string before = digest(*cluster_);
  const Result failed = place_.holdfast(dropping({"--commit", "abc123"}));
  EXPECT_EQ(failed.status, 1) << failed.errors;  // psql's own, of a statement that failed -c
  EXPECT_NE(digest(*cluster_), before);
  const std::size_t at = failed.errors.find("\nholdfast --config ");
  ASSERT_NE(at, std::string::npos) << failed.errors;
  const std::string line =
      failed.errors.substr(at + 10, failed.errors.find('\n', at + 1) - at - 10);
  const nlohmann::json all = journal();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].at("status"), 1);
  EXPECT_EQ(all[0].at("commit"), "abc123");
  EXPECT_EQ(all[0].at("program"), "psql");
  EXPECT_EQ(all[0].dump().find("DROP"), std::string::npos) << "arguments may hold secrets";

  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; stream >> word;) words.push_back(word);
  ASSERT_EQ(words.at(2), "restore") << line;
  place_.must({words.begin() + 2, words.end()});
  auto restored = adopt(cluster_->installation(), words.at(3));
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(digest(*restored), before);
}

TEST_P(Migrate, is_refused_while_no_restore_point_could_be_archived) {
  cluster_->sql("ALTER SYSTEM SET archive_command = 'false'");
  cluster_->sql("SELECT pg_reload_conf()");
  eventually("the server has read it",
             [&] { return cluster_->sql("SHOW archive_command") == "false"; });
  std::vector<std::string> line = touching();
  line.insert(line.begin() + 1, {"--archived-within", "2s"});
  expect_not_started(place_.holdfast(line), Code::wal_missing);
}

class MigrateOnce : public Migrate {};
INSTANTIATE_TEST_SUITE_P(On, MigrateOnce, ::testing::Values(15),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(MigrateOnce, restores_by_itself_into_the_directory_that_was_named) {
  const std::string before = digest(*cluster_);
  const fs::path there = place_.path("back");
  const Result failed = place_.holdfast(dropping({"--auto-restore", there.string()}));
  EXPECT_EQ(failed.status, 1) << failed.errors;
  EXPECT_NE(failed.errors.find("It remains"), std::string::npos) << failed.errors;
  auto restored = adopt(cluster_->installation(), there);
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(digest(*restored), before);
  // And next time it is refused before anything is done, as the directory is in use.
  std::vector<std::string> line = touching();
  line.insert(line.begin() + 1, {"--auto-restore", there.string()});
  const Result refused = place_.holdfast(line);
  EXPECT_EQ(refused.status, status_of(Code::refused)) << refused.errors;
  EXPECT_FALSE(fs::exists(ran()));
}

TEST_P(MigrateOnce, passes_output_and_status_on_and_pins_the_snapshot) {
  const Result done =
      place_.holdfast({"migrate", "--", "sh", "-c", "echo out; echo err >&2; exit 0"});
  EXPECT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(done.output, "out\n");
  EXPECT_NE(done.errors.find("err\n"), std::string::npos);
  EXPECT_EQ(pins(), std::vector<std::string>{journal()[0].at("backup")});
  const Result failed = place_.holdfast({"migrate", "--json", "--", "sh", "-c", "echo x; exit 77"});
  EXPECT_EQ(failed.status, 77) << failed.errors;
  EXPECT_EQ(failed.json().at("status"), 77) << "stdout is the document alone";
  EXPECT_EQ(place_.holdfast({"migrate", "--", "sh", "-c", "kill -9 $$"}).status, 137);
  EXPECT_EQ(journal().size(), 3U);
  EXPECT_EQ(journal()[2].at("status"), 137);
}

TEST_P(MigrateOnce, of_nothing_that_can_run_takes_no_snapshot) {
  const Result unknown = place_.holdfast({"migrate", "--", "no-such-program"});
  EXPECT_EQ(unknown.status, status_of(Code::not_found)) << unknown.errors;
  EXPECT_EQ(place_.holdfast({"migrate"}).status, status_of(Code::usage));
  EXPECT_TRUE(place_.must({"list", "--json"}).json().at("backups").empty());
}

TEST_P(MigrateOnce, that_was_killed_is_in_the_journal_as_begun_and_the_next_one_says_so) {
  const fs::path log = place_.path("log");
  base::Command command;
  command.argv = {holdfast_binary().string(),
                  "--config",
                  place_.configuration().string(),
                  "migrate",
                  "--",
                  "sh",
                  "-c",
                  "trap 'exit 9' INT; touch " + ran().string() + "; while :; do sleep 0.1; done"};
  command.directory = place_.path();
  command.user = base::running_as_root() ? postgres::server_user() : std::nullopt;
  {
    base::Child migration(command, log);
    eventually("the command runs", [&] { return fs::exists(ran()); });
    EXPECT_EQ(place_.holdfast({"migrate", "--", "true"}).status, status_of(Code::busy));
    EXPECT_EQ(journal().at(0).at("state"), "running");
    migration.signal(SIGINT);  // is the command's, which ends in its own way
    EXPECT_EQ(migration.wait_for(std::chrono::seconds(20)), 9) << text_of(log);
  }
  EXPECT_EQ(journal().at(0).at("status"), 9);
  fs::remove(ran());
  command.argv.back() = "touch " + ran().string() + "; sleep 1; touch " + ran().string() + ".end";
  {
    base::Child migration(command, log);
    eventually("the command runs", [&] { return fs::exists(ran()); });
    migration.signal(SIGKILL);
    EXPECT_EQ(migration.wait_for(std::chrono::seconds(20)), 137);
  }
  EXPECT_TRUE(journal().at(1).at("ended").is_null());
  eventually("the command goes on by itself", [&] { return fs::exists(ran().string() + ".end"); });
  EXPECT_EQ(journal().at(1).at("state"), "end unknown");
  const auto is_said = [](const Result& next) {
    return next.errors.find("was begun and has no end") != std::string::npos;
  };
  EXPECT_TRUE(is_said(place_.must({"migrate", "--", "true"})));
  EXPECT_FALSE(is_said(place_.must({"migrate", "--", "true"}))) << "not for ever";
  EXPECT_EQ(journal().at(0).at("state"), "failed: 9");
  EXPECT_EQ(journal().at(1).at("state"), "end unknown") << "the list keeps it";
}

class MigrateTwice : public Migrate {
 protected:
  MigrateTwice() {
    overwrite(place_.configuration(),
              text_of(place_.configuration()) +
                  fmt::format("\n[repository.offsite]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
                              offsite().string(), place_.path("offsite.key").string()));
    place_.must({"init"});
    fs::rename(offsite(), offsite().string() + ".away");  // a disk that is not there
  }
  ~MigrateTwice() override { fs::rename(offsite().string() + ".away", offsite()); }
  fs::path offsite() const { return place_.path("offsite"); }
};
INSTANTIATE_TEST_SUITE_P(On, MigrateTwice, ::testing::Values(15),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(MigrateTwice, goes_on_with_the_repository_that_is_there_and_says_which_one_is_not) {
  const Result done = place_.holdfast(touching());
  EXPECT_EQ(done.status, 0) << done.errors;
  EXPECT_TRUE(fs::exists(ran()));
  EXPECT_NE(done.errors.find("repository offsite: "), std::string::npos) << done.errors;
  EXPECT_NE(done.errors.find("is in repository local"), std::string::npos) << done.errors;
  EXPECT_EQ(done.errors.find("is in repository offsite"), std::string::npos) << done.errors;
  const Result listed = place_.holdfast({"migrate", "--list", "--json", "--repository", "local"});
  EXPECT_EQ(listed.json().at("migrations").at(0).at("state"), "succeeded");
}

TEST_P(MigrateTwice, is_not_started_if_the_way_back_has_to_be_in_both) {
  overwrite(place_.configuration(), text_of(place_.configuration()) + "\n[wal]\ncopies = 2\n");
  const Result refused = place_.holdfast(touching());
  EXPECT_NE(refused.status, 0);
  EXPECT_FALSE(fs::exists(ran()));
  EXPECT_NE(refused.errors.find("the command was not started"), std::string::npos)
      << refused.errors;
  EXPECT_NE(refused.errors.find("repository offsite: "), std::string::npos) << refused.errors;
  const auto listed = place_.must({"list", "--json", "--repository", "local"}).json();
  for (const auto& each : listed.at("backups")) EXPECT_TRUE(each.at("pins").empty());
}

}  // namespace
}  // namespace holdfast::tests
