// Clocks that are wrong, or are set while something runs: nothing that is needed goes, what is
// committed stays right and in order, and the next run simply works (TRAPS GC14, LC3, LC7).

#include "harness/receiver.h"

namespace holdfast::tests {
namespace {

using base::Code;

constexpr long hour = 3600;
constexpr long ten_years = 10 * 365 * 24 * hour;

class Clock : public ReceiveTest {
 protected:
  Clock() { fs::copy_file(SHIFTED_CLOCK, place_.path("shifted_clock.so")); }

  /// The clock of all commands that are run with environment().
  void set(long seconds) const { overwrite(place_.path("shift"), std::to_string(seconds)); }
  std::vector<std::pair<std::string, std::string>> environment() const {
    return {{"LD_PRELOAD", place_.path("shifted_clock.so").string()},
            {"SHIFTED_CLOCK", place_.path("shift").string()}};
  }
  Result at(long seconds, const std::vector<std::string>& arguments) const {
    set(seconds);
    return place_.holdfast(arguments, environment());
  }
  void keep(const std::string& rule) const {
    std::string text = text_of(place_.configuration());
    text.resize(text.find("[keep]"));
    overwrite(place_.configuration(), text + "[keep]\n" + rule + "\n");
  }
};

TEST_F(Clock, GC14_expire_by_a_clock_that_is_years_ahead_or_behind_lets_nothing_go) {
  place_.must({"backup"});
  place_.must({"backup"});
  place_.must({"pin", backup_ids(place_).front(), "--for", "3d", "--reason", "test"});
  const auto before = backup_ids(place_);
  ASSERT_EQ(before.size(), 3U);
  for (const char* rule : {"backups = \"7d\"", "window = \"7d\""}) {
    keep(rule);
    for (const long seconds : {ten_years, -ten_years}) {
      SCOPED_TRACE(fmt::format("{} {}", rule, seconds));
      const Result result = at(seconds, {"expire", "--yes"});
      EXPECT_EQ(result.status, 0) << result.errors;
      if (seconds > 0) {
        EXPECT_NE(result.errors.find("clock may be wrong"), std::string::npos) << result.errors;
      }
      if (std::string(rule).starts_with("backups")) {
        EXPECT_EQ(backup_ids(place_), before) << result.output;
      }
      EXPECT_EQ(backup_ids(place_).back(), before.back());
      EXPECT_EQ(backup_ids(place_).front(), before.front()) << "the pinned one";
      expect_all_verifies(place_);
    }
  }
}

TEST_F(Clock, backups_by_clocks_that_went_back_are_all_used_and_the_latest_is_reached) {
  for (const long seconds : {2 * hour, -2 * hour, 0L}) {
    insert(fmt::format("{}", seconds));
    const Result result = at(seconds, {"backup"});
    EXPECT_EQ(result.status, 0) << result.errors;
  }
  EXPECT_EQ(backup_ids(place_).size(), 4U);
  expect_all_verifies(place_);
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(rows(*restored), rows(*source_));
}

TEST_F(Clock, LC3_set_during_a_backup_it_is_whole_or_ends_loudly) {
  source_->sql("CREATE TABLE big AS SELECT g, md5(g::text) FROM generate_series(1, 200000) g");
  for (const long seconds : {hour, -hour}) {
    SCOPED_TRACE(seconds);
    set(0);
    const std::size_t backups = backup_ids(place_).size();
    const std::size_t packs = objects(place_, "packs").size();
    Running running(place_, {"backup", "--workers", "1", "--compare", "nothing"}, environment());
    await([&] { return objects(place_, "packs").size() > packs || running.over(); }, "a pack");
    running.signal(SIGSTOP);
    ASSERT_FALSE(running.over()) << running.said();
    set(seconds);
    running.signal(SIGCONT);
    const int status = running.wait();
    EXPECT_TRUE(status == 0 || status == status_of(Code::busy)) << running.said();
    EXPECT_EQ(backup_ids(place_).size(), backups + (status == 0 ? 1 : 0)) << running.said();
    expect_all_verifies(place_);
    place_.must({"backup"});
  }
}

TEST_F(Clock, WR4_set_while_wal_is_received_loses_nothing_that_was_confirmed) {
  for (const long seconds : {hour, -hour}) {
    SCOPED_TRACE(seconds);
    set(0);
    Running receiver(place_, {"wal", "receive"}, environment());
    await([&] { return receiver.said().find("receiving WAL") != std::string::npos; }, "WAL");
    insert("before");
    await_all_stored(*source_);
    set(seconds);
    insert("after");
    // By a clock that was put forward the lease is over, for all who share it: it takes it again.
    await_all_stored(*source_);
    receiver.signal(SIGTERM);
    EXPECT_EQ(receiver.wait(), 0) << receiver.said();
    Running next(place_, {"wal", "receive"}, environment());
    insert("again");
    await_all_stored(*source_);
    next.signal(SIGTERM);
    EXPECT_EQ(next.wait(), 0) << next.said();
  }
  EXPECT_TRUE(listed().at("gaps").empty());
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), rows(*source_));
}

}  // namespace
}  // namespace holdfast::tests
