// Backups through a replication connection for which the server sends changes only (17): what is in
// them must be what it would have sent as a whole.

#include <cstdlib>

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr std::uint64_t page_bytes = 8192;

class IncrementOf : public testing::Test {
 protected:
  explicit IncrementOf(int major, const postgres::InitOptions& options = {})
      : cluster_(place_.cluster(major, options)) {
    make_agentless(place_);
    restart();
  }

  /// So that nothing writes of itself, and yesterday's WAL is still there.
  void restart(const postgres::Settings& more = {}) {
    cluster_->stop();
    start(more);
  }
  void start(const postgres::Settings& more = {}) {
    postgres::Settings settings = {{"autovacuum", "off"},
                                   {"summarize_wal", "on"},
                                   {"wal_keep_size", "256MB"},
                                   {"checkpoint_timeout", "1h"},
                                   {"wal_log_hints", "on"}};
    for (const auto& each : archiving(place_)) settings.push_back(each);
    settings.insert(settings.end(), more.begin(), more.end());
    cluster_->start(settings);
    point_configuration_at(place_, *cluster_);
  }

  fs::path file_of(const std::string& table) const {
    return cluster_->data_directory() /
           cluster_->sql("SELECT pg_relation_filepath('" + table + "')");
  }

  nlohmann::json take(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"backup", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = place_.must(arguments);
    said_ = result.errors;
    return result.json();
  }

  /// What a restore of that backup alone has otherwise than the server's disk.
  std::string differences(const nlohmann::json& backup) {
    const std::string target = fmt::format("restored-{}", ++restores_);
    place_.must({"restore", place_.path(target).string(), "--backup", backup.at("id"), "--to",
                 "immediate"});
    return differences_on_disk(cluster_->data_directory(), place_.path(target));
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string said_;
  int restores_ = 0;
};

/// A vacuum cuts off the end of a table, and what grows there again is partly never written to.
void cut_off_and_grow(const Cluster& cluster, const fs::path& rows) {
  cluster.sql(fmt::format("COPY (SELECT * FROM t WHERE id <= 1500) TO '{}'", rows.string()));
  cluster.sql("DELETE FROM t WHERE id > 3000");
  cluster.sql("VACUUM t");
  cluster.sql(fmt::format("COPY t FROM '{}'", rows.string()));
  cluster.sql("CHECKPOINT");
}

class Increment : public IncrementOf, public testing::WithParamInterface<int> {
 protected:
  Increment() : IncrementOf(GetParam()) {}
};

TEST_P(Increment, is_what_was_on_disk) {
  cluster_->sql("CREATE TABLE t (id int PRIMARY KEY, v text)");
  cluster_->sql("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 50000) g");
  cluster_->sql("VACUUM t");
  EXPECT_EQ(take().at("compared"), "nothing");
  cluster_->sql("UPDATE t SET v = 'changed' WHERE id % 5000 = 0");
  cluster_->sql("CREATE TABLE u AS SELECT * FROM t LIMIT 1000");
  cluster_->sql("CREATE DATABASE d STRATEGY file_copy");
  cluster_->sql("CHECKPOINT");
  const auto few = take();
  EXPECT_EQ(few.at("compared"), "summaries") << said_;
  EXPECT_EQ(said_.find("warning"), std::string::npos) << said_;
  EXPECT_EQ(differences(few), "");
  // It is a base for the next one like any other, and whoever may replicate may ask.
  cluster_->sql("CREATE ROLE plain LOGIN REPLICATION");
  std::string configuration = text_of(place_.configuration());
  const std::string user = "user=postgres";
  configuration.replace(configuration.find(user), user.size(), "user=plain");
  overwrite(place_.configuration(), configuration);
  cluster_->sql("TRUNCATE u");
  cluster_->sql("DROP DATABASE d");
  const auto fewer = take({"--compare", "summaries"});
  EXPECT_EQ(fewer.at("compared"), "summaries") << said_;
  EXPECT_EQ(differences(fewer), "");
  place_.must({"verify"});
}

// U8: the server itself forgets the truncation, and asks for the old pages.
TEST_P(Increment, U8_what_was_cut_off_does_not_come_back) {
  cluster_->sql("CREATE TABLE t (id int, v text)");
  cluster_->sql("INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 6000) g");
  // Otherwise the next one would write to all pages, and the whole file be sent.
  cluster_->sql("VACUUM t");
  const fs::path rows = place_.path("rows");
  take();
  const std::string before = text_of(file_of("t"));
  cut_off_and_grow(*cluster_, rows);
  const std::string now = text_of(file_of("t"));
  std::size_t empty = 0;
  for (std::size_t at = 0; at < now.size() && at < before.size(); at += page_bytes) {
    if (now.find_first_not_of('\0', at) >= at + page_bytes) ++empty;
  }
  ASSERT_GT(empty, 0U) << "no page came back empty, so this shows nothing";
  const auto made = take();
  EXPECT_EQ(made.at("compared"), "summaries") << said_;
  EXPECT_EQ(differences(made), "");
}

TEST_P(Increment, restores_what_was_written_while_it_ran_and_later) {
  Load load(place_, *cluster_, 4);
  take();
  const long long before = load.transactions();
  eventually("the load goes on", [&] { return load.transactions() > before + 100; });
  EXPECT_EQ(take().at("compared"), "summaries") << said_;
  const Moment moment = mark(*cluster_, "moment");
  load.stop();
  place_.archive_all(*cluster_);
  const auto restored = place_.restored(*cluster_, "restored", {"--to", "moment"});
  postgres::Session session = restored->session();
  EXPECT_EQ(content(session), moment.content);
  EXPECT_EQ(amcheck(*restored), "");
  restored->stop();
  EXPECT_EQ(bad_pages(*restored), "");
}

std::vector<int> majors() {
  return std::getenv("HOLDFAST_LONG") != nullptr ? std::vector<int>{17, 18} : std::vector<int>{17};
}

INSTANTIATE_TEST_SUITE_P(Versions, Increment, testing::ValuesIn(majors()),
                         [](const auto& each) { return std::to_string(each.param); });

/// Without checksums, so that pages can be changed behind the server's back.
class Doubt : public IncrementOf {
 protected:
  Doubt() : IncrementOf(17, {.checksums = false}) {}
};

TEST_F(Doubt, U10_a_change_that_the_summaries_miss_is_found_by_the_sample) {
  cluster_->session().run_script(
      "DO $$ BEGIN FOR i IN 1..600 LOOP "
      "EXECUTE format('CREATE TABLE t%s AS SELECT repeat(''x'', 900) AS v', i); "
      "END LOOP; END $$");
  const std::string files = cluster_->sql(
      "SELECT string_agg(pg_relation_filepath(oid), ' ') FROM pg_class WHERE relname ~ '^t\\d+$'");
  take();
  cluster_->stop();
  std::istringstream names(files);
  for (std::string name; names >> name;) flip_byte(cluster_->data_directory() / name, 8000);
  start();
  const auto made = take();
  EXPECT_EQ(made.at("compared"), "content");
  EXPECT_NE(said_.find("is not among the changes"), std::string::npos) << said_;
  EXPECT_EQ(differences(made), "");
}

TEST_F(Doubt, U4_a_server_that_was_set_back_is_not_believed) {
  cluster_->sql("CREATE TABLE t (id int PRIMARY KEY, life int)");
  cluster_->sql("INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) g");
  cluster_->sql("VACUUM FREEZE t");  // so that later reading it writes nothing
  cluster_->stop();
  const fs::path copy = place_.path("snapshot");
  fs::copy(cluster_->data_directory(), copy, fs::copy_options::recursive);
  start();
  cluster_->sql("UPDATE t SET life = 1 WHERE id IN (100, 9000)");
  take();
  const std::string passed = cluster_->sql("SELECT pg_current_wal_lsn()");
  cluster_->stop(postgres::Server::StopMode::immediate);
  fs::remove_all(cluster_->data_directory());
  fs::rename(copy, cluster_->data_directory());
  for (const auto& each : fs::recursive_directory_iterator(cluster_->data_directory())) {
    place_.give_to_server_user(each.path());
  }
  place_.give_to_server_user(cluster_->data_directory());
  start({{"archive_mode", "off"}});
  cluster_->sql("UPDATE t SET life = 2 WHERE id IN (9000, 15000)");
  while (cluster_->sql(fmt::format("SELECT pg_current_wal_lsn() > pg_lsn '{}' + (32 << 20)",
                                   passed)) != "t") {
    cluster_->sql("SELECT pg_logical_emit_message(false, '', 'x')");
    cluster_->sql("SELECT pg_switch_wal()");
  }
  const auto made = take();
  EXPECT_EQ(made.at("compared"), "content");
  EXPECT_NE(said_.find("other WAL than was archived"), std::string::npos) << said_;
  EXPECT_EQ(differences(made), "");
}

TEST_F(Doubt, makes_it_compare_by_content_and_say_why) {
  const auto expect_content = [&](std::string_view why) {
    cluster_->sql("UPDATE t SET life = life + 1 WHERE id = 1");
    const auto made = take({"--compare", "summaries"});
    EXPECT_EQ(made.at("compared"), "content") << why;
    EXPECT_NE(said_.find(why), std::string::npos) << said_;
    EXPECT_EQ(differences(made), "") << why;
  };
  cluster_->sql("CREATE TABLE t AS SELECT g AS id, 0 AS life FROM generate_series(1, 2000) g");
  take();
  const std::string end = cluster_->sql("SELECT pg_current_wal_lsn()");
  cluster_->sql("INSERT INTO t VALUES (0, 0)");
  cluster_->sql("CHECKPOINT");
  eventually("there is a summary of that", [&] {
    return cluster_->sql("SELECT max(end_lsn) > '" + end + "' FROM pg_available_wal_summaries()") ==
           "t";
  });
  for (const auto& each :
       fs::directory_iterator(cluster_->data_directory() / "pg_wal" / "summaries")) {
    fs::remove(each.path());
  }
  expect_content("WAL summaries are required");
  restart({{"summarize_wal", "off"}});
  expect_content("summarize_wal is off");
  // The WAL in which the last backup ended goes away, and little comes after it.
  restart({{"wal_keep_size", "0"}});
  cluster_->sql("SELECT pg_switch_wal()");
  cluster_->sql("CHECKPOINT");
  cluster_->sql("CHECKPOINT");
  expect_content("wal_keep_size");
  // Where the server has later WAL, and the archive all up to that, nothing is in doubt.
  cluster_->sql("CHECKPOINT");
  cluster_->sql("INSERT INTO t SELECT g, 1 FROM generate_series(1, 1000) g");
  place_.archive_all(*cluster_);
  EXPECT_EQ(take().at("compared"), "summaries") << said_;
}

class OfStandby : public IncrementOf {
 protected:
  OfStandby() : IncrementOf(17) {}
};

TEST_F(OfStandby, is_as_good_as_one_of_its_primary) {
  cluster_->sql(
      "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 9999) g");
  take();
  finish_segment(place_, *cluster_);
  place_.must({"restore", place_.path("standby").string()});
  fs::rename(place_.path("standby/recovery.signal"), place_.path("standby/standby.signal"));
  const auto standby = adopt(cluster_->installation(), place_.path("standby"));
  standby->start({{"primary_conninfo", cluster_->connection() + " application_name=standby"},
                  {"hot_standby", "on"},
                  {"summarize_wal", "on"},
                  {"wal_keep_size", "256MB"}});
  cluster_->sql("UPDATE t SET v = 'changed' WHERE id % 1000 = 0");
  cluster_->sql("VACUUM t");
  finish_segment(place_, *cluster_);
  cluster_->sql("CHECKPOINT");
  // The backup needs the WAL up to where the standby is.
  const std::string last = cluster_->sql("SELECT pg_switch_wal()");
  eventually("the standby has it", [&] {
    return standby->sql(fmt::format("SELECT pg_last_wal_replay_lsn() >= '{}'", last)) == "t";
  });
  place_.archive_all(*cluster_);
  point_configuration_at(place_, *standby);
  const auto made = take();
  EXPECT_EQ(made.at("compared"), "summaries") << said_;
  const std::string before = digest(*cluster_);
  const auto restored =
      place_.restored(*cluster_, "restored", {"--backup", made.at("id").get<std::string>()});
  EXPECT_EQ(digest(*restored), before);
  EXPECT_EQ(amcheck(*restored), "");
}

}  // namespace
}  // namespace holdfast::tests
