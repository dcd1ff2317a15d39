#include "postgres/replication.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "postgres/server.h"

namespace holdfast::postgres {
namespace {

/// A running cluster of PostgreSQL 15 that lets others replicate.
class Cluster {
 public:
  Cluster() : directory_("holdfast-replication") {
    base::fs::permissions(directory_.path(), base::fs::perms(0755));
    const Installation installation = find_installation(15).value();
    make_cluster(installation, directory_.path() / "data");
    server_.emplace(installation, directory_.path() / "data",
                    Settings{{"fsync", "off"}, {"wal_level", "replica"}, {"max_wal_senders", "3"}});
  }
  std::string connection() const { return server_->connection(); }

 private:
  base::TemporaryDirectory directory_;
  std::optional<Server> server_;
};

TEST(Replication, says_which_system_it_is_and_runs_commands) {
  const Cluster cluster;
  Replication replication(cluster.connection(), "receiver");
  Session session(cluster.connection());
  const Replication::System system = replication.identify();
  EXPECT_EQ(system.id, session.system_id());
  EXPECT_EQ(system.timeline, Timeline{1});
  EXPECT_TRUE(system.flushed);
  EXPECT_EQ(replication.setting("wal_segment_size"), "16MB");
  EXPECT_EQ(replication.setting("no_such_setting"), std::nullopt);
  EXPECT_EQ(session.value("SELECT application_name FROM pg_stat_activity WHERE backend_type = "
                          "'walsender'"),
            "receiver");
}

TEST(Replication, can_be_used_after_a_command_that_failed) {
  const Cluster cluster;
  Replication replication(cluster.connection(), "receiver");
  EXPECT_THROW(replication.command("NONSENSE"), base::Error);
  EXPECT_TRUE(replication.identify().flushed);
}

TEST(Replication, reads_a_stream_to_its_end) {
  const Cluster cluster;
  Replication replication(cluster.connection(), "receiver");
  replication.begin("BASE_BACKUP ( MANIFEST 'no', CHECKPOINT 'fast' )");
  std::size_t bytes = 0;
  int streams = 0;
  for (;;) {
    const auto answer = replication.next_answer();
    if (answer == Replication::Answer::end) break;
    if (answer != Replication::Answer::copy_out) continue;
    ++streams;
    while (true) {
      const auto read = replication.read(std::chrono::seconds(30));
      if (read == Replication::Read::end) break;
      ASSERT_EQ(read, Replication::Read::data);
      bytes += replication.message().size();
    }
  }
  EXPECT_EQ(streams, 1);
  EXPECT_GT(bytes, 20U << 20);
  EXPECT_TRUE(replication.identify().flushed);
}

TEST(Replication, streams_wal_both_ways) {
  const Cluster cluster;
  Replication replication(cluster.connection(), "receiver");
  replication.command("CREATE_REPLICATION_SLOT \"holdfast\" PHYSICAL RESERVE_WAL");
  const auto begin = replication.identify().flushed;
  const Lsn start{begin.value - begin.value % (16 << 20)};
  replication.begin("START_REPLICATION SLOT \"holdfast\" PHYSICAL " + to_string(start) +
                    " TIMELINE 1");
  ASSERT_EQ(replication.next_answer(), Replication::Answer::copy_both);
  ASSERT_EQ(replication.read(std::chrono::seconds(30)), Replication::Read::data);
  EXPECT_EQ(replication.message().front(), 'w');
  replication.finish_writing();
  while (replication.read(std::chrono::seconds(30)) == Replication::Read::data) {
  }
  while (replication.next_answer() != Replication::Answer::end) {
  }
  EXPECT_EQ(replication.identify().timeline, Timeline{1});
}

TEST(Replication, fails_clearly_where_no_server_is) {
  try {
    Replication("host=/nonexistent user=postgres", "receiver");
    FAIL() << "it connected";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::unreachable);
  }
}

TEST(Replication, quotes_names_and_texts) {
  EXPECT_EQ(quoted_identifier("a\"b"), "\"a\"\"b\"");
  EXPECT_EQ(quoted_literal("it's"), "'it''s'");
}

}  // namespace
}  // namespace holdfast::postgres
