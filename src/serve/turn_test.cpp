// A month of work with a fake clock: two daemons, clock changes, nights that were missed, and
// backups that take longer than the time between them.

#include "serve/turn.h"

#include <gtest/gtest.h>

#include <map>

#include "repository/testing.h"
#include "serve/schedule.h"

namespace holdfast::serve {
namespace {

using base::Timestamp;
using repository::testing::place;
using std::chrono::hours;
using std::chrono::minutes;

Timestamp at(const std::string& text) {
  return base::parse_time(text, "UTC").time;
}

struct Span {
  Timestamp from;
  Timestamp to;
  bool holds(Timestamp now) const { return from <= now && now < to; }
};

struct DoneRun {
  Timestamp slot;
  Timestamp began;
  Timestamp ended;
};

/// One daemon, as far as scheduling goes: what it does in each minute.
struct FakeDaemon {
  std::string host;
  std::vector<Span> down{};
  Timestamp last{};
  std::shared_ptr<Turn> turn{};
  DoneRun run{};

  void minute(const repository::Repository& shared, const Schedule& schedule,
              const date::time_zone* zone, Timestamp now, base::Microseconds takes,
              std::vector<DoneRun>& runs) {
    for (const Span& each : down) {
      if (each.holds(now)) return turn.reset();
    }
    if (turn && now < run.ended) return;
    if (turn) {
      turn->finish();
      turn.reset();
      last = run.slot;
      runs.push_back(run);
    }
    const auto slot = schedule.due(last, now - jitter_of(host, "backup", minutes(5)), zone);
    if (!slot) return;
    try {
      turn = Turn::take(shared, place, "backup", *slot, last);
      run = {*slot, now, now + takes};
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::busy);
    }
  }
};

std::vector<DoneRun> simulate(const std::string& schedule, const std::string& zone, Timestamp from,
                              Timestamp to, base::Microseconds takes,
                              const std::vector<FakeDaemon>& hosts) {
  repository::testing::TestRepository shared(false);
  std::vector<FakeDaemon> daemons = hosts;  // their turns end before the repository does
  std::vector<DoneRun> runs;
  const Schedule parsed = Schedule::parse(schedule);
  for (FakeDaemon& each : daemons) each.last = from;
  for (Timestamp now = from; now < to; now += minutes(1)) {
    for (FakeDaemon& each : daemons) {
      each.minute(shared.repository, parsed, find_zone(zone), now, takes, runs);
    }
  }
  return runs;
}

/// Every run is of a slot of its own, and none begins before another has ended.
void expect_one_at_a_time(const std::vector<DoneRun>& runs) {
  for (std::size_t i = 1; i < runs.size(); ++i) {
    EXPECT_LT(runs[i - 1].slot, runs[i].slot) << "twice: " << base::to_string(runs[i].slot);
    EXPECT_LE(runs[i - 1].ended, runs[i].began) << base::to_string(runs[i].began);
  }
}

TEST(Turn, two_daemons_do_each_night_of_a_month_once_over_both_clock_changes) {
  for (const auto& [zone, month] : std::map<std::string, std::vector<std::string>>{
           {"Europe/Berlin", {"2026-03-15 12:00", "2026-10-11 12:00"}},
           {"America/New_York", {"2026-02-25 12:00", "2026-10-20 12:00"}}}) {
    for (const std::string& from : month) {
      const auto runs = simulate("daily 02:30", zone, at(from), at(from) + hours(30 * 24), hours(1),
                                 {{"a"}, {"b"}});
      EXPECT_EQ(runs.size(), 30U) << zone << from;
      expect_one_at_a_time(runs);
      for (const DoneRun& run : runs) {
        EXPECT_LT(run.began - run.slot, minutes(7)) << base::to_string(run.began);
      }
    }
  }
}

TEST(Turn, nights_that_were_missed_are_caught_up_once) {
  const Timestamp from = at("2026-03-15 12:00");
  const Span down{from + hours(5 * 24), from + hours(9 * 24)};
  const auto runs = simulate("daily 02:30", "Europe/Berlin", from, from + hours(30 * 24), hours(1),
                             {{"a", {down}}, {"b", {down}}});
  EXPECT_EQ(runs.size(), 27U) << "of four nights one is caught up";
  expect_one_at_a_time(runs);
}

TEST(Turn, what_one_daemon_leaves_undone_the_other_does) {
  const Timestamp from = at("2026-03-15 12:00");
  // It is stopped in the middle of a backup that takes four hours.
  const Span night{at("2026-03-18 03:00"), at("2026-03-25 12:00")};
  const auto runs = simulate("daily 02:30", "Europe/Berlin", from, from + hours(30 * 24), hours(4),
                             {{"a", {night}}, {"b"}});
  EXPECT_EQ(runs.size(), 30U);
  expect_one_at_a_time(runs);
}

TEST(Turn, backups_that_take_longer_than_their_interval_follow_each_other) {
  const Timestamp from = at("2026-03-15 12:00");
  const auto runs =
      simulate("hourly", "Europe/Berlin", from, from + hours(48), minutes(90), {{"a"}, {"b"}});
  EXPECT_GE(runs.size(), 30U) << "the next begins as soon as one ends";
  expect_one_at_a_time(runs);
}

TEST(Turn, a_run_that_is_being_done_is_busy_and_one_that_was_done_says_so) {
  repository::testing::TestRepository shared(true);
  const Timestamp slot = at("2026-03-15 02:00");
  Timestamp done;
  auto turn = Turn::take(shared.repository, place, "backup", slot, done);
  ASSERT_NE(turn, nullptr);
  EXPECT_EQ(
      base::testing::code_of([&] { Turn::take(shared.repository, place, "backup", slot, done); }),
      base::Code::busy);
  EXPECT_NE(Turn::take(shared.repository, place, "expire", slot, done), nullptr);
  turn->finish();
  turn.reset();
  EXPECT_EQ(Turn::take(shared.repository, place, "backup", slot - hours(1), done), nullptr);
  EXPECT_EQ(done, slot);
  EXPECT_NE(Turn::take(shared.repository, place, "backup", slot + hours(1), done), nullptr);
  EXPECT_NE(Turn::take(shared.repository, place, "backup", slot - hours(48), done), nullptr)
      << "a clock that was ahead by more than a day is not believed";
}

}  // namespace
}  // namespace holdfast::serve
