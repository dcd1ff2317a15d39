#include "postgres/session.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "postgres/backup_label.h"
#include "postgres/server.h"

namespace holdfast::postgres {
namespace {

/// A running cluster of PostgreSQL 15 for one test.
class Cluster {
 public:
  Cluster() : directory_("holdfast-session") {
    base::fs::permissions(directory_.path(), base::fs::perms(0755));
    const Installation installation = find_installation(15).value();
    make_cluster(installation, data());
    server_.emplace(installation, data(), Settings{{"fsync", "off"}});
  }
  base::fs::path data() const { return directory_.path() / "data"; }
  Server& server() { return *server_; }
  std::string connection() const { return server_->connection(); }

 private:
  base::TemporaryDirectory directory_;
  std::optional<Server> server_;
};

template <typename Action>
base::Error error_of(const Action& action) {
  try {
    action();
  } catch (const base::Error& error) {
    return error;
  }
  return {base::Code::internal, "nothing failed"};
}

TEST(Session, is_unreachable_where_no_server_is) {
  const base::Error error = error_of([] { Session("host=/nonexistent user=postgres"); });
  EXPECT_EQ(error.code(), base::Code::unreachable);
  EXPECT_EQ(error.message().find('\n'), std::string::npos);
}

TEST(Session, never_shows_a_password) {
  for (const char* connection :
       {"host=/nonexistent password=hun ter2", "host=/nonexistent password='hunter2",
        "host=/nonexistent password=hunter2", "postgresql://me:hunter2@[::1", "hunter2 host"}) {
    const base::Error error = error_of([&] { Session{connection}; });
    EXPECT_NE(error.code(), base::Code::internal);
    EXPECT_EQ((error.message() + error.hint()).find("ter2"), std::string::npos) << error.message();
  }
}

TEST(Session, asks_the_server_in_settings_of_its_own) {
  Cluster cluster;
  Session(cluster.connection()).query("ALTER ROLE postgres SET search_path = public; ");
  Session(cluster.connection()).query("ALTER ROLE postgres SET statement_timeout = '50ms'");
  Session session(cluster.connection());
  EXPECT_EQ(session.setting("search_path"), "pg_catalog");
  EXPECT_EQ(session.setting("statement_timeout"), "0");
  session.query("SELECT pg_sleep(0.1)");
  EXPECT_EQ(session.setting("idle_session_timeout"), "0");
  EXPECT_EQ(session.setting("client_encoding"), "UTF8");
  EXPECT_EQ(session.setting("application_name"), "holdfast");
  EXPECT_FALSE(session.setting("no_such_setting"));
  Session named(cluster.connection() + " application_name=mine");
  EXPECT_EQ(named.setting("application_name"), "mine");
  EXPECT_EQ(session.value("SELECT $1 || 'x'", {"it's"}), "it'sx");
  EXPECT_EQ(session.query("SELECT NULL, 'a' UNION ALL SELECT 'b', ''").size(), 2U);
  EXPECT_FALSE(session.query("SELECT NULL").at(0).at(0));
  EXPECT_THROW(session.value("SELECT NULL"), base::Error);
  EXPECT_THROW(session.value("SELECT 1 WHERE false"), base::Error);
  const base::Error broken = error_of([&] { session.query("SELECT no_such_column"); });
  EXPECT_EQ(broken.code(), base::Code::postgres);
  EXPECT_NE(broken.message().find("no_such_column"), std::string::npos);
  EXPECT_TRUE(session.alive());
}

TEST(Session, knows_who_the_server_is_and_where) {
  Cluster cluster;
  Session session(cluster.connection());
  const ControlFile control = read_control_file(cluster.data()).control;
  EXPECT_EQ(session.system_id(), control.system_id);
  EXPECT_EQ(session.timeline(), control.timeline);
  EXPECT_EQ(session.major_version(), 15);
  EXPECT_FALSE(session.in_recovery());
  EXPECT_GE(session.current_lsn(), control.checkpoint);
  EXPECT_LT(std::chrono::abs(session.clock() - base::now()), std::chrono::seconds(10));
}

TEST(Session, tells_lost_connections_and_missing_grants_from_other_errors) {
  Cluster cluster;
  Session session(cluster.connection());
  session.query("CREATE ROLE plain LOGIN");
  Session plain(cluster.connection() + " user=plain");
  const base::Error refused = error_of([&] { plain.start_backup("x", true); });
  EXPECT_EQ(refused.code(), base::Code::permission);
  EXPECT_NE(refused.hint().find("pg_backup_start(text, bool)"), std::string::npos);
  session.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'");
  EXPECT_EQ(error_of([&] { plain.query("SELECT 1"); }).code(), base::Code::unreachable);
  EXPECT_FALSE(plain.alive());
  cluster.server().stop(Server::StopMode::immediate);
  const base::Error lost = error_of([&] { session.query("SELECT 1"); });
  EXPECT_EQ(lost.code(), base::Code::unreachable) << lost.message();
  EXPECT_FALSE(session.alive());
}

TEST(Session, makes_a_backup_label_that_can_be_read) {
  Cluster cluster;
  Session session(cluster.connection());
  const std::string name = "nightly \xc3\xa4 \\ back\\\\slash";
  const Lsn start = session.start_backup(name, true).lsn;
  const Session::BackupStop stop = session.stop_backup();
  const BackupLabel label = parse_backup_label(stop.label_file);
  EXPECT_EQ(label.start, start);
  EXPECT_EQ(label.label, name);
  EXPECT_EQ(label.timeline, session.timeline());
  EXPECT_GT(stop.lsn, start);
  EXPECT_EQ(stop.tablespace_map, "");
  EXPECT_EQ(error_of([&] { session.stop_backup(); }).code(), base::Code::postgres);
}

// B16, B21: a location comes as the bytes that it is, whatever encodings say.
TEST(Session, tells_tablespaces_byte_for_byte_B21) {
  Cluster cluster;
  const base::fs::path location = cluster.data().parent_path() / "a\\b =\xc3\xa4";
  base::make_directories(location);
  const auto user = server_user();
  if (user) {
    ASSERT_EQ(::chown(location.c_str(), user->uid, user->gid), 0);
  }
  Session session(cluster.connection());
  session.query("CREATE TABLESPACE odd LOCATION E'" + cluster.data().parent_path().string() +
                "/a\\\\b =\xc3\xa4'");
  session.query("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
  Session latin(cluster.server().connection("latin"));
  latin.start_backup("x", true);
  const auto map = parse_tablespace_map(latin.stop_backup().tablespace_map);
  ASSERT_EQ(map.size(), 1U);
  EXPECT_EQ(map[0].location, location.string());
}

}  // namespace
}  // namespace holdfast::postgres
