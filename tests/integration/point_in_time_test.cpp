// Restores to moments, on the oldest and the newest server at hand: the state must be exactly that
// of the moment, whatever was being written at the time.

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

class PointInTime : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(PostgreSQL, PointInTime, testing::Values(15, 17),
                         [](const auto& each) { return std::to_string(each.param); });

void expect_sound(Cluster& cluster) {
  EXPECT_EQ(amcheck(cluster), "");
  cluster.stop();
  EXPECT_EQ(bad_pages(cluster), "");
}

TEST_P(PointInTime, each_named_moment_of_a_busy_server_comes_back_exactly) {
  Place place;
  const auto source = place.cluster(GetParam());
  Load load(place, *source, 5);
  const long long before = load.transactions();
  place.must({"backup"});
  EXPECT_GT(load.transactions(), before) << "the backup was to be taken under load";

  std::vector<Moment> moments;
  for (const char* name : {"breakfast", "lunch", "supper"}) {
    moments.push_back(mark(*source, name));
    const long long then = load.transactions();
    eventually("writing goes on", [&] { return load.transactions() > then + 50; });
  }
  load.stop();
  place.archive_all(*source);
  EXPECT_NE(moments[0].content, moments[2].content);

  for (const Moment& moment : moments) {
    const auto restored = place.restored(*source, moment.name, {"--to", moment.name});
    postgres::Session session = restored->session();
    EXPECT_EQ(content(session), moment.content) << moment.name;
    expect_sound(*restored);
  }
}

TEST_P(PointInTime, time_and_lsn_mean_the_same_moment_as_its_name) {
  Place place;
  const auto source = place.cluster(GetParam());
  Load load(place, *source, 1);
  place.must({"backup"});
  const Moment moment = mark(*source, "moment");
  const long long then = load.transactions();
  eventually("writing goes on", [&] { return load.transactions() > then + 50; });
  load.stop();
  place.archive_all(*source);

  const auto by_time = place.restored(*source, "by_time", {"--to", moment.time});
  postgres::Session time_session = by_time->session();
  EXPECT_EQ(content(time_session), moment.content);
  const auto by_lsn = place.restored(*source, "by_lsn", {"--to", moment.lsn, "--exclusive"});
  postgres::Session lsn_session = by_lsn->session();
  EXPECT_EQ(content(lsn_session), moment.content);
}

/// Rows 1 to 5, each from a transaction of its own, and what is known of each.
struct Row {
  std::string transaction;
  std::string time;        ///< after its commit
  std::string local_time;  ///< the same, as a clock in New York shows it
};

class Targets : public testing::Test {
 protected:
  Targets() : source_(place_.cluster()) {
    source_->sql("ALTER SYSTEM SET timezone = 'America/New_York'");
    source_->sql("SELECT pg_reload_conf()");
    eventually("the time zone is set",
               [&] { return source_->sql("SHOW timezone") == "America/New_York"; });
    source_->sql("CREATE TABLE rows (id int)");
    place_.must({"backup"});
    for (int id = 1; id <= 5; ++id) add(id);
    place_.archive_all(*source_);
  }

  void add(int id) {
    Row row;
    row.transaction = source_->sql(
        fmt::format("INSERT INTO rows VALUES ({}) RETURNING pg_current_xact_id()::text", id));
    postgres::Session session = source_->session();
    row.time = session.value("SELECT clock_timestamp()");
    row.local_time = session.value(
        "SELECT to_char($1::timestamptz AT TIME ZONE 'America/New_York', 'YYYY-MM-DD "
        "HH24:MI:SS.US')",
        {row.time});
    rows_.push_back(row);
  }

  /// The rows in a restore with these arguments.
  std::string restored(const std::vector<std::string>& arguments) {
    const std::string name = fmt::format("restored{}", ++count_);
    const auto cluster = place_.restored(*source_, name, arguments);
    return cluster->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM rows");
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::vector<Row> rows_;
  int count_ = 0;
};

TEST_F(Targets, a_transaction_is_replayed_or_with_exclusive_just_not) {
  EXPECT_EQ(restored({"--to", rows_[2].transaction}), "1 2 3");
  EXPECT_EQ(restored({"--to", "xid:" + rows_[2].transaction, "--exclusive"}), "1 2");
}

TEST_F(Targets, immediate_is_the_backup_itself_and_latest_all_that_is_archived) {
  EXPECT_EQ(restored({"--to", "immediate"}), "");
  // WF6: without --to nothing that came after the backup is forgotten.
  EXPECT_EQ(restored({}), "1 2 3 4 5");
  EXPECT_EQ(restored({"--to", "latest"}), "1 2 3 4 5");
}

TEST_F(Targets, WF14_a_time_without_zone_is_read_in_the_servers_zone_and_said_aloud) {
  const Result result =
      place_.must({"restore", place_.path("aloud").string(), "--to", rows_[1].local_time});
  EXPECT_NE(result.errors.find("America/New_York"), std::string::npos) << result.errors;
  // What was understood, in UTC, for whoever reads the note.
  const std::string utc = source_->sql(
      fmt::format("SELECT to_char('{}'::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')",
                  rows_[1].time));
  EXPECT_NE(result.errors.find(utc), std::string::npos) << result.errors;
  EXPECT_EQ(restored({"--to", rows_[1].local_time}), "1 2");
}

TEST_F(Targets, a_time_after_the_last_commit_but_in_the_window_replays_everything) {
  // A second backup proves that nothing was committed between the last row and itself.
  const std::string after = rows_.back().time;
  place_.must({"backup"});
  place_.archive_all(*source_);
  EXPECT_EQ(restored({"--to", after}), "1 2 3 4 5");
}

}  // namespace
}  // namespace holdfast::tests
