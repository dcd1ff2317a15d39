// Backups through a replication connection, without a data directory: as good as an agent's.

#include <fcntl.h>

#include <thread>

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int damaged_status = 17;
constexpr std::uint64_t page_bytes = 8192;

/// Lets no WAL come into the repository but by the backup itself.
void stop_archiving(const Cluster& cluster) {
  cluster.sql("ALTER SYSTEM SET archive_command = '/bin/false'");
  cluster.sql("SELECT pg_reload_conf()");
}

/// A large file without blocks on disk keeps BASE_BACKUP busy for some seconds.
void add_something_large(const Place& place, const Cluster& cluster) {
  const fs::path file = cluster.data_directory() / "large";
  overwrite(file, "");
  fs::resize_file(file, std::uintmax_t{1} << 30);
  place.give_to_server_user(file);
}

/// `holdfast backup`, running beside us.
std::unique_ptr<base::Child> begin_backup(const Place& place) {
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", place.configuration().string(), "backup"};
  command.directory = place.path();
  if (base::running_as_root()) command.user = postgres::server_user();
  return std::make_unique<base::Child>(command, place.path("backup.log"));
}

void await_streaming(const Cluster& cluster) {
  eventually("files are being streamed", [&] {
    return cluster.sql(
               "SELECT count(*) FROM pg_stat_progress_basebackup "
               "WHERE phase = 'streaming database files' AND backup_streamed > 0") == "1";
  });
}

std::vector<std::string> remains(const Place& place, const Cluster& cluster) {
  std::vector<std::string> names;
  for (const char* kind : {"packs", "maps", "backups"}) {
    const fs::path directory = object_of(place, cluster, kind);
    if (!fs::exists(directory)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
      if (entry.is_regular_file()) names.push_back(entry.path().string());
    }
  }
  return names;
}

class AgentlessCluster : public testing::Test {
 protected:
  explicit AgentlessCluster(int major = 15) : source_(place_.cluster(major)) {
    make_agentless(place_);
  }

  std::string file_of(const std::string& table) const {
    return source_->sql("SELECT pg_relation_filepath('" + table + "')");
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

/// Where the server's version makes a difference.
class Agentless : public AgentlessCluster, public testing::WithParamInterface<int> {
 protected:
  Agentless() : AgentlessCluster(GetParam()) {}
};

TEST_P(Agentless, restores_what_was_written_while_the_backup_ran_and_later) {
  Load load(place_, *source_, 4);
  const auto made = place_.must({"backup", "--json"}).json();
  EXPECT_EQ(made.at("state"), "good");
  const Moment moment = mark(*source_, "moment");
  load.stop();
  place_.archive_all(*source_);
  const auto restored = place_.restored(*source_, "restored", {"--to", "moment"});
  postgres::Session session = restored->session();
  EXPECT_EQ(content(session), moment.content);
  EXPECT_EQ(amcheck(*restored), "");
  restored->stop();
  EXPECT_EQ(bad_pages(*restored), "");
  place_.must({"verify"});
}

TEST_F(AgentlessCluster, brings_the_wal_that_it_needs_where_nobody_archives) {
  stop_archiving(*source_);
  source_->sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
  place_.must({"backup"});
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t"), "1000");
  EXPECT_EQ(source_->sql("SELECT count(*) FROM pg_replication_slots"), "0") << "slots left behind";
}

/// Everything of a file that a restore brings back, but for when.
std::map<std::string, std::string> restored_tree(const fs::path& directory) {
  auto tree = tree_of(directory);
  for (const char* name : {"backup_label", "postgresql.auto.conf"}) tree.erase(name);
  for (auto& [name, content] : tree) {
    const auto status = base::status_of(directory / name, false);
    content += fmt::format(" {:o} {}:{}", status->st_mode, status->st_uid, status->st_gid);
  }
  tree.erase("global/pg_control");  // it holds the last checkpoint
  return tree;
}

TEST_P(Agentless, holds_the_same_files_and_pages_as_an_agents_backup) {
  source_->sql("ALTER SYSTEM SET autovacuum = off");
  source_->sql("SELECT pg_reload_conf()");
  source_->sql("CREATE TABLE t AS SELECT g AS id, md5(g::text) FROM generate_series(1, 50000) g");
  source_->sql("CREATE UNLOGGED TABLE u AS SELECT generate_series(1, 1000)");
  source_->sql("CREATE TABLE nothing()");
  for (const char* name :
       {"standby.signal.not", "pg_stat_tmp/x", "pgsql_tmpx", "base/pgsql_tmp1", "empty"}) {
    overwrite(source_->data_directory() / name, name == std::string("empty") ? "" : "content");
    place_.give_to_server_user(source_->data_directory() / name);
  }
  // The server would send this one; it must not make a standby of what is restored.
  overwrite(source_->data_directory() / "recovery.signal", "");
  place_.give_to_server_user(source_->data_directory() / "recovery.signal");
  source_->sql("VACUUM");
  source_->sql("CHECKPOINT");
  const auto streamed = place_.must({"backup", "--json"}).json();
  overwrite(
      place_.configuration(),
      fmt::format("[cluster.main]\ndata_directory = \"{}\"\n{}", source_->data_directory().string(),
                  text_of(place_.configuration()).substr(sizeof "[cluster.main]")));
  const auto copied = place_.must({"backup", "--json"}).json();
  EXPECT_EQ(streamed.at("files"), copied.at("files"));
  EXPECT_EQ(streamed.at("bytes"), copied.at("bytes"));
  for (const auto& backup : {streamed, copied}) {
    const std::string id = backup.at("id");
    place_.must({"restore", place_.path(id).string(), "--backup", id, "--to", "immediate"});
  }
  const auto a = restored_tree(place_.path(streamed.at("id").get<std::string>()));
  const auto b = restored_tree(place_.path(copied.at("id").get<std::string>()));
  for (const auto& [name, content] : b) {
    ASSERT_TRUE(a.contains(name)) << name;
    EXPECT_TRUE(a.at(name) == content) << name;
  }
  EXPECT_EQ(a.size(), b.size());
  EXPECT_GT(a.size(), 900U);
}

TEST_F(AgentlessCluster, BK10_tablespaces_keep_their_files_apart_and_go_where_they_are_told) {
  for (const char* name : {"space", "space2"}) {
    fs::create_directory(place_.path(name));
    place_.give_to_server_user(place_.path(name));
    source_->sql(
        fmt::format("CREATE TABLESPACE {} LOCATION '{}'", name, place_.path(name).string()));
    source_->sql(
        fmt::format("CREATE TABLE in_{0} TABLESPACE {0} AS SELECT g AS id, '{0}' AS v "
                    "FROM generate_series(1, 3000) g",
                    name));
  }
  // One relative path in both: the tables' files get one number.
  const auto oid = [&](const std::string& name) {
    return source_->sql("SELECT oid FROM pg_tablespace WHERE spcname = '" + name + "'");
  };
  const fs::path first = source_->data_directory() / file_of("in_space");
  const fs::path twin = place_.path("space2") /
                        fs::relative(first, source_->data_directory() / "pg_tblspc" / oid("space"));
  overwrite(twin, "a stranger under the same path");
  place_.give_to_server_user(twin);
  place_.must({"backup"});
  fs::remove(twin);
  source_->sql("INSERT INTO in_space VALUES (0, 'later')");
  const std::string before = digest(*source_);
  place_.archive_all(*source_);
  const fs::path moved = place_.path("moved");
  const fs::path moved2 = place_.path("moved, too");
  place_.must({"restore", place_.path("restored").string(), "--tablespace",
               oid("space") + "=" + moved.string(), "--tablespace",
               oid("space2") + "=" + moved2.string()});
  EXPECT_EQ(text_of(moved2 / fs::relative(twin, place_.path("space2"))),
            "a stranger under the same path");
  const auto restored = adopt(source_->installation(), place_.path("restored"));
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(digest(*restored), before);
  EXPECT_EQ(restored->sql("SELECT pg_tablespace_location(" + oid("space") + ")"), moved);
  EXPECT_EQ(fs::read_symlink(place_.path("restored") / "pg_tblspc" / oid("space2")), moved2);
}

TEST_F(AgentlessCluster, BK4_a_connection_that_is_cut_leaves_nothing) {
  add_something_large(place_, *source_);
  const auto backup = begin_backup(place_);
  await_streaming(*source_);
  source_->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_basebackup");
  EXPECT_EQ(backup->wait(), 8) << text_of(place_.path("backup.log"));  // unreachable
  EXPECT_EQ(remains(place_, *source_), std::vector<std::string>{});
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("backups").size(), 0U);
  EXPECT_EQ(source_->sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

TEST_P(Agentless, BK7_damaged_pages_are_reported_like_an_agents) {
  source_->sql(
      "CREATE TABLE t WITH (autovacuum_enabled = off) AS "
      "SELECT g AS id, repeat('x', 500) AS v FROM generate_series(1, 300) g");
  source_->sql("SELECT count(*) FROM t");  // later readers (the witness) have nothing to write
  const std::string name = file_of("t");
  source_->stop();
  flip_byte(source_->data_directory() / name, 5 * page_bytes + 6000);
  source_->start();
  point_configuration_at(place_, *source_);
  const Result found = place_.holdfast({"backup", "--json"});
  EXPECT_EQ(found.status, damaged_status) << found.errors;
  EXPECT_EQ(found.json().at("damaged_files"),
            nlohmann::json::parse(
                fmt::format(R"([{{"path": "{}", "pages": 1, "first_pages": [5]}}])", name)));
  // As if it were being written just now: the server does not look at such a page.
  const fs::path file = source_->data_directory() / name;
  base::write_at(base::open_file(file, O_WRONLY), base::Bytes(8, 0xfe), 3 * page_bytes, file);
  const Result both = place_.holdfast({"backup", "--json"});
  EXPECT_EQ(both.status, damaged_status) << both.errors;
  EXPECT_EQ(both.json().at("damaged_files")[0].at("first_pages"), nlohmann::json({3, 5}));
}

INSTANTIATE_TEST_SUITE_P(Versions, Agentless, testing::Values(15, 17),
                         [](const auto& each) { return std::to_string(each.param); });

TEST(AgentlessSetUp, init_needs_no_data_directory_and_doctor_says_what_lacks) {
  Place place;
  Cluster cluster(installation(15), place.path("data"));
  cluster.start();
  const Result made = place.must({"init", "--agentless", "--connection", cluster.connection(),
                                  "--repository", "file://" + place.repository().string()});
  EXPECT_EQ(made.output.find("doctor --fix"), std::string::npos) << made.output;
  EXPECT_NE(made.output.find("wal receive"), std::string::npos) << made.output;
  EXPECT_EQ(text_of(place.configuration()).find("data_directory ="), std::string::npos);
  place.must({"backup"});
  EXPECT_EQ(place.holdfast({"doctor"}).status, 0) << place.holdfast({"doctor"}).output;

  cluster.sql("CREATE ROLE plain LOGIN");
  std::string text = text_of(place.configuration());
  text.replace(text.find("user=postgres"), sizeof "user=postgres" - 1, "user=plain");
  overwrite(place.configuration(), text);
  const Result backup = place.holdfast({"backup"});
  EXPECT_NE(backup.errors.find("REPLICATION"), std::string::npos) << backup.errors;
  const Result doctor = place.holdfast({"doctor"});
  EXPECT_NE(doctor.status, 0);
  EXPECT_NE(doctor.output.find("REPLICATION"), std::string::npos) << doctor.output;
  // It is all that lacks.
  cluster.sql("ALTER ROLE plain REPLICATION");
  place.must({"backup"});
}

}  // namespace
}  // namespace holdfast::tests
