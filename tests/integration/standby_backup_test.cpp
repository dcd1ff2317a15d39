// Backups of a standby: by an agent on its machine, and through a replication connection.

#include <fcntl.h>

#include <atomic>
#include <thread>

#include "harness/witness.h"
#include "postgres/segment_content.h"

namespace holdfast::tests {
namespace {

enum class Way { agent, agentless };

class Standby : public testing::TestWithParam<std::pair<int, Way>> {
 protected:
  Standby() : primary_(place_.cluster(GetParam().first)) {
    primary_->sql("ALTER SYSTEM SET autovacuum = off");
    primary_->sql("SELECT pg_reload_conf()");
    primary_->sql("CREATE TABLE t AS SELECT g AS id, md5(g::text) FROM generate_series(1, 5000) g");
    place_.must({"backup"});
    finish_segment(place_, *primary_);
    place_.must({"restore", place_.path("standby").string()});
    fs::rename(place_.path("standby/recovery.signal"), place_.path("standby/standby.signal"));
    standby_ = adopt(primary_->installation(), place_.path("standby"));
    standby_->start({{"primary_conninfo", primary_->connection() + " application_name=standby"},
                     {"hot_standby", "on"}});
    point_configuration_at(place_, *standby_);
    if (GetParam().second == Way::agentless) {
      std::string text = text_of(place_.configuration());
      const std::size_t begin = text.find("data_directory");
      text.erase(begin, text.find('\n', begin) + 1 - begin);
      overwrite(place_.configuration(), text);
    }
    eventually("the standby streams", [&] {
      return primary_->sql(
                 "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
                 "AND application_name = 'standby'") == "1";
    });
  }

  std::unique_ptr<base::Child> begin_backup() {
    base::Command command;
    command.argv = {holdfast_binary().string(),
                    "--config",
                    place_.configuration().string(),
                    "backup",
                    "--compare",
                    "nothing"};
    command.directory = place_.path();
    if (base::running_as_root()) command.user = postgres::server_user();
    return std::make_unique<base::Child>(command, place_.path("backup.log"));
  }

  std::string log() const { return text_of(place_.path("backup.log")); }

  void await_replay() const {
    const std::string end = primary_->sql("SELECT pg_current_wal_lsn()");
    eventually("the standby has it", [&] {
      return standby_->sql("SELECT pg_last_wal_replay_lsn() >= '" + end + "'") == "t";
    });
  }
  void set_archiving(bool works) const {
    primary_->sql(works ? "ALTER SYSTEM RESET archive_command"
                        : "ALTER SYSTEM SET archive_command = '/bin/false'");
    primary_->sql("SELECT pg_reload_conf()");
    eventually("archive_command is set",
               [&] { return (primary_->sql("SHOW archive_command") == "/bin/false") != works; });
  }
  /// A full segment; its name.
  std::string fill_segment() const {
    const std::string segment = current_segment(*primary_);
    while (current_segment(*primary_) == segment) {
      primary_->sql("SELECT pg_logical_emit_message(false, 'x', repeat('0123456789', 100000))");
    }
    return segment;
  }
  std::string end_segment(const std::string& value) const {
    primary_->sql("INSERT INTO t VALUES (-3, '" + value + "')");
    const std::string segment = current_segment(*primary_);
    primary_->sql("SELECT pg_switch_wal()");
    await_replay();
    return segment;
  }
  /// As PostgreSQL leaves a segment whose stream was cut off behind its switch, on a standby: with
  /// the rest of what the file was before.
  void leave_remains(const std::string& segment, const std::string& older) const {
    const fs::path file = standby_->data_directory() / "pg_wal" / segment;
    const base::Bytes old = base::read_existing_file(primary_->data_directory() / "pg_wal" / older);
    base::Bytes bytes = base::read_existing_file(file);
    const postgres::SegmentEnd end = postgres::read_to_segment_end(bytes);
    ASSERT_TRUE(end.switched);
    const base::Fd open = base::open_file(file, O_RDWR);
    base::write_at(open, base::View(old).subspan(end.used), end.used, file);
    ASSERT_NE(base::read_existing_file(file), bytes);
  }

  Place place_;
  std::unique_ptr<Cluster> primary_;
  std::unique_ptr<Cluster> standby_;
};

TEST_P(Standby, restores_and_waits_for_the_wal_that_it_cannot_end_itself) {
  primary_->sql("INSERT INTO t VALUES (0, 'before')");
  primary_->sql("CHECKPOINT");
  primary_->sql("INSERT INTO t VALUES (-1, 'between')");
  const std::string last_commit = primary_->sql("SELECT clock_timestamp()");
  eventually("the standby has it",
             [&] { return standby_->sql("SELECT count(*) FROM t WHERE id = -1") == "1"; });
  const auto backup = begin_backup();
  // Nobody writes: the last segment does not end by itself.
  eventually("the backup waits for WAL",
             [&] { return log().find("waiting up to") != std::string::npos; });
  EXPECT_EQ(backup->finished(), std::nullopt);
  finish_segment(place_, *primary_);
  EXPECT_EQ(backup->wait(), 0) << log();
  primary_->sql("INSERT INTO t VALUES (-2, 'later')");
  finish_segment(place_, *primary_);
  const std::string before = digest(*primary_);

  const auto backups = place_.must({"list", "--json"}).json().at("backups");
  ASSERT_EQ(backups.size(), 2U);
  const std::string id = backups[1].at("id");
  EXPECT_EQ(primary_->sql(fmt::format("SELECT '{}'::timestamptz <= '{}'",
                                      backups[1].at("stopped").get<std::string>(), last_commit)),
            "t")
      << "it must not promise what was committed later";
  const auto restored = place_.restored(*primary_, "restored", {"--backup", id});
  EXPECT_EQ(digest(*restored), before);
  EXPECT_EQ(amcheck(*restored), "");
  const auto at_once = place_.restored(*primary_, "at_once", {"--backup", id, "--to", "immediate"});
  EXPECT_EQ(at_once->sql("SELECT count(*) FROM t WHERE id = 0"), "1");
}

TEST_P(Standby, one_that_is_promoted_meanwhile_yields_no_backup) {
  const fs::path large = standby_->data_directory() / "large";
  overwrite(large, "");
  fs::resize_file(large, std::uintmax_t{1} << 30);
  place_.give_to_server_user(large);
  const auto backup = begin_backup();
  eventually("files are being read", [&] {
    return GetParam().second == Way::agent
               ? standby_->sql(
                     "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%backup%' "
                     "AND application_name = 'holdfast' AND state = 'idle'") == "1"
               : standby_->sql(
                     "SELECT count(*) FROM pg_stat_progress_basebackup "
                     "WHERE backup_streamed > 0") == "1";
  });
  standby_->sql("SELECT pg_promote()");
  EXPECT_EQ(backup->wait(), 15) << log();  // postgres
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("backups").size(), 1U);

  // It is a primary now, on a timeline of its own, and archives nothing.
  fs::remove(large);
  standby_->sql("INSERT INTO t VALUES (0, 'on timeline 2')");
  const auto made = place_.must({"backup", "--json"}).json();
  EXPECT_EQ(made.at("timeline"), 2);
  const auto restored = place_.restored(*primary_, "restored");
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t WHERE id = 0"), "1");
}

TEST_P(Standby, INV_5_stores_no_remains_of_a_file_that_was_another_segment_before) {
  const std::string older = fill_segment();
  set_archiving(false);
  const std::string segment = end_segment("ended early");
  leave_remains(segment, older);
  end_segment("and another one");
  const auto backup = begin_backup();
  eventually("the backup ends", [&] {
    end_segment("until it has what it needs");
    return backup->finished().has_value();
  });
  EXPECT_EQ(backup->wait(), 0) << log();

  // What the primary has of it is the same WAL.
  const Result pushed = place_.must(
      {"wal", "push", "--json", (primary_->data_directory() / "pg_wal" / segment).string()});
  EXPECT_TRUE(pushed.json().at("was_there"));
  set_archiving(true);
  finish_segment(place_, *primary_);
  EXPECT_EQ(primary_->sql("SELECT last_failed_wal IS NULL OR last_archived_wal > last_failed_wal "
                          "FROM pg_stat_archiver"),
            "t");
  EXPECT_TRUE(place_.must({"verify", "--json"}).json().at("wal_files_with_remains").empty());
  EXPECT_EQ(digest(*place_.restored(*primary_, "restored")), digest(*primary_));

  // The next backup, which compares the standby's WAL with the archive's, finds no other life.
  const auto next = begin_backup();
  eventually("the next backup ends", [&] {
    end_segment("again");
    return next->finished().has_value();
  });
  EXPECT_EQ(next->wait(), 0) << log();
  EXPECT_EQ(log().find("set back"), std::string::npos) << log();
  EXPECT_TRUE(place_.must({"list", "--json"}).json().at("gaps").empty());
}

INSTANTIATE_TEST_SUITE_P(Ways, Standby,
                         testing::Values(std::pair{15, Way::agent}, std::pair{17, Way::agentless}),
                         [](const auto& each) {
                           return fmt::format(
                               "{}_{}", each.param.first,
                               each.param.second == Way::agent ? "agent" : "agentless");
                         });

}  // namespace
}  // namespace holdfast::tests
