// Targets that cannot be reached are refused before anything is written, with what could be.

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int usage = 2;
constexpr int outside_window = 14;

class Window : public testing::Test {
 protected:
  Window() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t (id int)");
    early_ = source_->sql("SELECT clock_timestamp()");
    early_lsn_ = source_->sql("SELECT pg_current_wal_lsn()");
    early_xid_ = source_->sql("INSERT INTO t VALUES (0) RETURNING pg_current_xact_id()::text");
    source_->sql("SELECT pg_create_restore_point('early')");
    place_.must({"backup"});
    source_->sql("INSERT INTO t VALUES (1)");
    place_.archive_all(*source_);
    window_ = place_.must({"list", "--json"}).json().at("recovery_windows")[0];
  }

  Result restore(const std::string& to) const {
    return place_.holdfast({"restore", place_.path("restored").string(), "--to", to});
  }

  void expect_refused(const std::string& to) const {
    const Result result = restore(to);
    EXPECT_EQ(result.status, outside_window) << to << ": " << result.errors;
    for (const char* end : {"from_lsn", "to_lsn"}) {
      EXPECT_NE(result.errors.find(window_.at(end).get<std::string>()), std::string::npos)
          << result.errors;
    }
    EXPECT_FALSE(fs::exists(place_.path("restored"))) << to;
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::string early_, early_lsn_, early_xid_;
  nlohmann::json window_;
};

TEST_F(Window, B37_the_future_is_refused_and_the_window_named) {
  expect_refused(source_->sql("SELECT clock_timestamp() + '1 hour'"));
  expect_refused("2099-01-01 00:00:00+00");
  expect_refused("7F/0");
  expect_refused("xid:4000000000");
  expect_refused("name:no such restore point");
}

TEST_F(Window, B37_WF12_what_lies_before_the_first_backup_is_refused) {
  expect_refused(early_);
  expect_refused("2001-01-01 00:00:00 UTC");
  expect_refused(early_lsn_);
  expect_refused("xid:" + early_xid_);
  expect_refused("early");
}

TEST_F(Window, WF12_of_two_backups_the_newest_that_ended_before_the_target_is_taken) {
  const std::string first = place_.must({"list", "--json"}).json().at("backups")[0].at("id");
  const std::string between = source_->sql("SELECT clock_timestamp()");
  source_->sql("INSERT INTO t VALUES (2)");
  const std::string second = place_.must({"backup", "--json"}).json().at("id");
  const std::string after = source_->sql("SELECT clock_timestamp()");
  source_->sql("INSERT INTO t VALUES (3)");
  place_.archive_all(*source_);
  const auto chosen = [&](const std::string& name, const std::string& to) {
    return place_.must({"restore", place_.path(name).string(), "--to", to, "--json"})
        .json()
        .at("backup")
        .get<std::string>();
  };
  EXPECT_EQ(chosen("between", between), first);
  EXPECT_EQ(chosen("after", after), second);
}

TEST_F(Window, B37_WF14_times_that_nobody_can_mean_are_refused_as_such) {
  for (const char* time :
       {"2026-11-23 13am", "2026-11-23 0am", "2026-11-23 13pm", "2026-11-23", "2026-13-01 00:00:00",
        "2026-02-30 12:00:00", "2026-11-23 24:30:00", "2026-11-23 12:60:00",
        "2026-11-23 12:00:00 Mars/Olympus", "2026-11-23 12:00:00+99", "time:yesterday",
        "time:", "lsn:1234", "xid:abc", "xid:0", "name:", "time:10:00"}) {
    const Result result = restore(time);
    EXPECT_EQ(result.status, usage) << time << ": " << result.errors;
    EXPECT_FALSE(fs::exists(place_.path("restored")));
  }
}

TEST_F(Window, WF14_a_local_time_that_a_clock_change_skipped_or_repeated_is_refused) {
  EXPECT_EQ(restore("2026-03-29 02:30:00 Europe/Berlin").status, usage);
  EXPECT_EQ(restore("2026-10-25 02:30:00 Europe/Berlin").status, usage);
  EXPECT_EQ(restore("2026-06-01 02:30:00 Europe/Berlin").status, outside_window) << "understood";
}

TEST_F(Window, an_unknown_backup_and_an_unknown_action_are_refused) {
  const std::string to = place_.path("restored").string();
  EXPECT_EQ(place_.holdfast({"restore", to, "--backup", "20200101T000000Z-abcd"}).status, 4);
  EXPECT_EQ(place_.holdfast({"restore", to, "--action", "explode"}).status, usage);
  EXPECT_FALSE(fs::exists(place_.path("restored")));
}

TEST_F(Window,
       that_ends_in_much_WAL_without_a_commit_ends_at_least_at_the_last_one_that_was_found) {
  source_->sql("ALTER SYSTEM SET autovacuum = off");
  source_->sql("SELECT pg_reload_conf()");
  source_->sql("INSERT INTO t VALUES (2)");
  // WAL as of one long transaction, but quicker to make.
  source_->sql(
      "SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 8000000))) "
      "FROM generate_series(1, 42)");
  place_.archive_all(*source_);
  const auto window = place_.must({"list", "--json"}).json().at("recovery_windows")[0];
  EXPECT_TRUE(window.at("to_is_at_least").get<bool>()) << window;
  EXPECT_GT(postgres::parse_lsn(window.at("to_lsn").get<std::string>())->value,
            postgres::parse_lsn(window_.at("to_lsn").get<std::string>())->value + (320 << 20));
  EXPECT_GE(window.at("to").get<std::string>(), window_.at("to").get<std::string>());
  for (const char* command : {"list", "status", "doctor"}) {
    const Result said = place_.holdfast({command});
    EXPECT_NE(said.output.find(" to at least "), std::string::npos) << said.output;
  }
  place_.must({"restore", place_.path("all").string()});
}

}  // namespace
}  // namespace holdfast::tests
