#include "service/probe_history.h"

#include <sqlite3.h>

#include <thread>

#include "base/testing.h"
#include "service/uptime.h"

namespace holdfast::service {
namespace {

using base::Code;
using base::Microseconds;
using base::Timestamp;
using base::testing::code_of;
using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

Timestamp at(const std::string& text) {
  return base::parse_time(text, "UTC").time;
}

class History : public ::testing::Test {
 protected:
  History() : history_(file()) {}
  base::fs::path file() const { return place_.path() / "probes.sqlite"; }
  void sample(Timestamp time, bool ok, Microseconds interval = minutes(1)) {
    history_.record({"p", time, ok, Microseconds(1000), interval, ok ? "" : "why"});
  }
  /// One a minute, from `from` on and before `to`.
  void samples(Timestamp from, Timestamp to, bool ok) {
    for (Timestamp time = from; time < to; time += minutes(1)) sample(time, ok);
  }
  Uptime uptime(const std::string& from, const std::string& to) {
    return history_.uptime("p", at(from), at(to));
  }

  base::TemporaryDirectory place_{"holdfast-probes"};
  ProbeHistory history_;
};

TEST_F(History, weighs_by_time_and_never_counts_a_gap_as_up) {
  samples(at("2026-11-01 00:00"), at("2026-11-01 01:00"), true);
  samples(at("2026-11-01 01:00"), at("2026-11-01 01:10"), false);
  // Nobody looks for an hour.
  samples(at("2026-11-01 02:10"), at("2026-11-01 03:00"), true);
  const Uptime found = uptime("2026-11-01 00:00", "2026-11-01 03:00");
  EXPECT_EQ(found.up, minutes(60 + 50));
  EXPECT_EQ(found.down, minutes(10)) << "the last one speaks for one interval";
  EXPECT_EQ(found.known(), minutes(120)) << "an hour is unknown";
  EXPECT_EQ(found.samples, 120U);
  EXPECT_EQ(found.failed, 10U);
}

TEST_F(History, clips_to_the_span_that_is_asked_for) {
  samples(at("2026-11-01 00:00:30"), at("2026-11-01 01:00"), true);
  EXPECT_EQ(uptime("2026-11-01 00:10", "2026-11-01 00:20").up, minutes(10));
  EXPECT_EQ(uptime("2026-11-02 00:00", "2026-11-02 00:20").known(), minutes(0));
}

TEST_F(History, takes_a_late_sample_for_continuous_and_a_missing_one_not) {
  sample(at("2026-11-01 00:00"), true);
  sample(at("2026-11-01 00:01:50"), true);
  EXPECT_EQ(uptime("2026-11-01 00:00", "2026-11-01 00:01:50").up, seconds(110));
  sample(at("2026-11-01 00:04"), true);  // 130 s later
  EXPECT_EQ(uptime("2026-11-01 00:00", "2026-11-01 00:04").up, seconds(110 + 60));
}

TEST_F(History, excuses_planned_work_and_shows_it) {
  samples(at("2026-11-01 00:00"), at("2026-11-01 01:00"), false);
  history_.declare(
      {at("2026-11-01 00:10"), at("2026-11-01 00:30"), "move", at("2026-10-30 00:00")});
  history_.declare(
      {at("2026-11-01 00:20"), at("2026-11-01 00:40"), "more", at("2026-10-30 00:00")});
  const Uptime found = uptime("2026-11-01 00:00", "2026-11-01 01:00");
  EXPECT_EQ(found.planned, minutes(30)) << "windows that overlap do not count twice";
  EXPECT_EQ(found.down, minutes(30));
  EXPECT_EQ(history_.planned(at("2026-11-01 00:00"), at("2026-12-01 00:00")).size(), 2U);
  EXPECT_EQ(code_of([&] {
              history_.declare({at("2026-11-02 00:00"), at("2026-11-01 00:00"), "x", {}});
            }),
            Code::usage);
}

TEST_F(History, counts_no_moment_twice_when_the_clock_jumps) {
  samples(at("2026-11-01 00:00"), at("2026-11-01 01:00"), true);
  samples(at("2026-11-01 00:30"), at("2026-11-01 01:30"), false);  // half an hour back
  const Uptime found = uptime("2026-11-01 00:00", "2026-11-01 02:00");
  EXPECT_EQ(found.known(), minutes(90));
  EXPECT_EQ(found.up, minutes(30)) << "of two samples of one moment the failure counts";
  // A day ahead and back: what is in the future counts for nothing yet.
  sample(at("2026-11-03 00:00"), true);
  EXPECT_EQ(uptime("2026-11-01 00:00", "2026-11-02 00:00").known(), minutes(90));
}

TEST_F(History, folds_old_samples_into_days_without_changing_what_they_say) {
  base::testing::Random random(2);
  for (Timestamp time = at("2026-08-01 00:07"); time < at("2026-08-12 00:00");
       time += seconds(1200 + static_cast<int>(random.below(2000)))) {
    sample(time, random.chance(80), minutes(20));
  }
  history_.declare(
      {at("2026-08-02 20:00"), at("2026-08-03 04:00"), "move", at("2026-08-01 00:00")});
  const auto whole = [&] { return uptime("2026-08-01 00:00", "2026-08-12 00:00"); };
  const Uptime before = whole();
  const std::uint64_t raw = history_.raw_samples();
  for (const char* now : {"2026-09-14 12:00", "2026-09-14 12:00", "2026-09-16 00:00"}) {
    history_.fold(at(now));
    const Uptime after = whole();
    EXPECT_EQ(after.up, before.up) << now;
    EXPECT_EQ(after.down, before.down) << now;
    EXPECT_EQ(after.planned, before.planned) << now;
    EXPECT_EQ(after.samples, before.samples) << now;
  }
  EXPECT_LT(history_.raw_samples(), raw / 2);
  EXPECT_EQ(code_of([&] {
              history_.declare({at("2026-08-02 00:00"), at("2026-08-02 01:00"), "late", {}});
            }),
            Code::refused);
}

TEST_F(History, tells_months_their_budget_and_whether_the_promise_is_kept) {
  const auto only = [&](const std::string& now) {
    const auto all = uptime_by_month(history_, 0.995, at(now));
    EXPECT_EQ(all.size(), 1U);
    return all.front();
  };
  samples(at("2026-11-01 00:00"), at("2026-11-02 00:00"), true);
  EXPECT_EQ(only("2026-11-02 00:00").budget, minutes(216)) << "0.5 % of 30 days";
  EXPECT_EQ(only("2026-11-02 00:00").verdict, MonthUptime::Verdict::kept);
  samples(at("2026-11-02 00:00"), at("2026-11-02 03:00"), false);
  EXPECT_EQ(only("2026-11-02 03:00").left(), minutes(36));
  EXPECT_EQ(only("2026-11-02 03:36").verdict, MonthUptime::Verdict::kept);
  EXPECT_EQ(only("2026-11-02 03:40").verdict, MonthUptime::Verdict::unknown)
      << "nobody looked, and the promise hangs on it";
  samples(at("2026-11-02 03:00"), at("2026-11-02 03:37"), false);
  EXPECT_EQ(only("2026-11-02 03:37").verdict, MonthUptime::Verdict::broken);
  EXPECT_EQ(uptime_by_month(history_, 0.995, at("2027-01-05 00:00")).size(), 3U);
  EXPECT_EQ(code_of([] { parse_month("2026-13"); }), Code::usage);
  EXPECT_EQ(to_string(parse_month("2026-02")), "2026-02");
}

TEST_F(History, is_used_by_several_at_once_and_outlives_them) {
  {
    std::vector<std::jthread> writers;
    for (int writer = 0; writer < 4; ++writer) {
      writers.emplace_back([&, writer] {
        ProbeHistory own(file());
        for (int number = 0; number < 20; ++number) {
          own.record(
              {fmt::format("w{}", writer), Timestamp(seconds(number)), true, {}, seconds(1), ""});
        }
      });
    }
  }
  EXPECT_EQ(history_.raw_samples(), 80U);
  EXPECT_EQ(ProbeHistory(file()).probes().size(), 4U);
}

TEST_F(History, refuses_a_file_that_is_not_its_own) {
  const auto with = [&](const char* sql) {
    const base::fs::path other = place_.path() / "other";
    base::fs::remove(other);
    sqlite3* database = nullptr;
    sqlite3_open(other.c_str(), &database);
    sqlite3_exec(database, sql, nullptr, nullptr, nullptr);
    sqlite3_close(database);
    return code_of([&] { ProbeHistory{other}; });
  };
  EXPECT_EQ(with("CREATE TABLE t (x)"), Code::corrupt);
  EXPECT_EQ(with("CREATE TABLE t (x); PRAGMA application_id = 1212565553; PRAGMA user_version = 2"),
            Code::unsupported);
  base::replace_file(place_.path() / "text", base::view(std::string(5000, 'x')));
  EXPECT_EQ(code_of([&] { ProbeHistory{place_.path() / "text"}; }), Code::corrupt);
}

}  // namespace
}  // namespace holdfast::service
