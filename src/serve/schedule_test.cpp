#include "serve/schedule.h"

#include <date/tz.h>
#include <gtest/gtest.h>

#include <random>

#include "base/testing.h"

namespace holdfast::serve {
namespace {

using base::Timestamp;
using std::chrono::hours;
using std::chrono::minutes;

Timestamp at(const std::string& text) {
  return base::parse_time(text, "UTC").time;
}

/// All moments after `from`, up to `to`.
std::vector<std::string> moments(const std::string& schedule, const std::string& zone,
                                 const std::string& from, const std::string& to) {
  std::vector<std::string> found;
  const Schedule parsed = Schedule::parse(schedule);
  for (auto each = parsed.next(at(from), find_zone(zone)); each && *each <= at(to);
       each = parsed.next(*each, find_zone(zone))) {
    found.push_back(base::to_string(*each).substr(5, 11));
  }
  return found;
}
using Moments = std::vector<std::string>;

TEST(Schedule, means_what_it_says) {
  const auto in_march = [](const std::string& schedule) {
    return moments(schedule, "UTC", "2026-03-01 00:00", "2026-03-03 00:00");
  };
  EXPECT_EQ(in_march("daily 02:00"), (Moments{"03-01 02:00", "03-02 02:00"}));
  EXPECT_EQ(in_march("Weekly Sun 03:05"), (Moments{"03-01 03:05"}));
  EXPECT_EQ(in_march("30 1,13 * * mon-fri"), (Moments{"03-02 01:30", "03-02 13:30"}));
  EXPECT_EQ(in_march("0 20-23/2 2 mar *"), (Moments{"03-02 20:00", "03-02 22:00"}));
  EXPECT_EQ(in_march("every 16h"), (Moments{"03-01 08:00", "03-02 00:00", "03-02 16:00"}));
  EXPECT_EQ(in_march("hourly").size(), 48U);
  EXPECT_EQ(in_march("*/15 * * * *").size(), 192U);
  EXPECT_EQ(in_march("0 0 2 * 7"), (Moments{"03-02 00:00"}))
      << "Sunday 0:00 is not after the start";
  EXPECT_TRUE(Schedule::parse("after every backup").after_backup());
}

TEST(Schedule, limits_by_either_day_if_both_are_given_as_cron_does) {
  EXPECT_EQ(moments("0 0 13 * fri", "UTC", "2026-03-01 00:00", "2026-03-20 00:00"),
            (Moments{"03-06 00:00", "03-13 00:00", "03-20 00:00"}));
}

TEST(Schedule, finds_a_leap_day_over_a_century_that_has_none) {
  EXPECT_EQ(Schedule::parse("0 0 29 feb *").next(at("2096-03-01 00:00"), find_zone("UTC")),
            at("2104-02-29 00:00"));
}

TEST(Schedule, runs_once_when_clocks_go_forward) {
  // Berlin skips 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
  const auto berlin = [](const std::string& schedule) {
    return moments(schedule, "Europe/Berlin", "2026-03-28 12:00", "2026-03-30 12:00");
  };
  EXPECT_EQ(berlin("daily 02:30"), (Moments{"03-29 01:00", "03-30 00:30"}));
  EXPECT_EQ(berlin("*/20 2 * * *"),
            (Moments{"03-29 01:00", "03-30 00:00", "03-30 00:20", "03-30 00:40"}));
  EXPECT_EQ(berlin("hourly").size(), 48U);
  // New York on 8 March, at 07:00 UTC.
  EXPECT_EQ(moments("daily 02:30", "America/New_York", "2026-03-07 12:00", "2026-03-09 12:00"),
            (Moments{"03-08 07:00", "03-09 06:30"}));
}

TEST(Schedule, runs_once_when_clocks_go_back) {
  // Berlin has 02:00 to 03:00 twice on 25 October 2026, first from 00:00 UTC.
  const auto berlin = [](const std::string& schedule) {
    return moments(schedule, "Europe/Berlin", "2026-10-24 12:00", "2026-10-26 12:00");
  };
  EXPECT_EQ(berlin("daily 02:30"), (Moments{"10-25 00:30", "10-26 01:30"}));
  EXPECT_EQ(berlin("hourly").size(), 48U) << "an hour that comes twice is two hours";
  EXPECT_EQ(moments("daily 01:30", "America/New_York", "2026-10-31 12:00", "2026-11-02 12:00"),
            (Moments{"11-01 05:30", "11-02 06:30"}));
}

TEST(Schedule, hours_go_on_over_clock_changes_however_they_are_written) {
  for (const char* text : {"17 * * * *", "17 */1 * * *", "17 0-23 * * *"}) {
    for (const auto& [zone, from, to, count] :
         std::vector<std::tuple<std::string, std::string, std::string, std::size_t>>{
             {"Europe/Berlin", "2026-03-28 23:00", "2026-03-29 22:00", 23},
             {"Europe/Berlin", "2026-10-24 22:00", "2026-10-25 23:00", 25},
             // Half an hour, at 02:00 and from 02:00 back to 01:30.
             {"Australia/Lord_Howe", "2026-10-03 13:30", "2026-10-04 13:00", 24},
             {"Australia/Lord_Howe", "2026-04-04 13:00", "2026-04-05 13:30", 24}}) {
      const Moments found = moments(text, zone, from, to);
      EXPECT_EQ(found.size(), count) << text << " in " << zone << " from " << from;
    }
  }
}

TEST(Schedule, catches_up_once_however_many_were_missed) {
  const date::time_zone* zone = find_zone("Europe/Berlin");
  const Schedule daily = Schedule::parse("daily 02:00");
  EXPECT_EQ(daily.due(at("2026-11-01 01:00"), at("2026-11-09 12:00"), zone),
            at("2026-11-09 01:00"));
  EXPECT_EQ(daily.due(at("2026-11-09 01:00"), at("2026-11-09 12:00"), zone), std::nullopt);
  EXPECT_EQ(daily.due(at("2026-11-09 01:00"), at("2026-11-10 00:59"), zone), std::nullopt);
  EXPECT_EQ(Schedule::parse("* * * * *").due(at("1990-01-01 00:00"), at("2026-11-09 12:00"), zone),
            at("2026-11-09 12:00"));
  EXPECT_EQ(Schedule::parse("0 0 1 1 *").due(at("2019-01-01 00:00"), at("2026-11-09 12:00"), zone),
            at("2025-12-31 23:00"));
}

TEST(Schedule, outlives_a_clock_that_was_wrong) {
  const date::time_zone* zone = find_zone("UTC");
  const Schedule daily = Schedule::parse("daily 02:00");
  EXPECT_EQ(daily.due(at("2040-01-01 02:00"), at("2026-11-09 12:00"), zone),
            at("2026-11-09 02:00"));
  EXPECT_EQ(daily.due(at("2026-11-09 14:00"), at("2026-11-09 12:00"), zone), std::nullopt)
      << "put back by two hours: nothing runs twice";
}

TEST(Schedule, refuses_what_it_cannot_understand_or_what_never_comes) {
  for (const char* text : {"",
                           " ",
                           "daily",
                           "daily 2",
                           "daily 24:00",
                           "daily 02:60",
                           "daily 02:5",
                           "daily -1:00",
                           "weekly 03:00",
                           "weekly 3 03:00",
                           "every",
                           "every 0s",
                           "every 5s",
                           "every -1h",
                           "every nan",
                           "after backup",
                           "0 2 * *",
                           "0 2 * * * *",
                           "60 2 * * *",
                           "0 24 * * *",
                           "0 2 0 * *",
                           "0 2 32 * *",
                           "0 2 * 13 *",
                           "0 2 * * 8",
                           "0 2 * * mond",
                           "*/0 * * * *",
                           "5-1 * * * *",
                           "1,,2 * * * *",
                           "1- * * * *",
                           "1/2/3 * * * *",
                           "+1 * * * *",
                           "99999999999 * * * *",
                           "0 0 31 2 *",
                           "0 0 30 feb *",
                           "hourly now"}) {
    EXPECT_EQ(base::testing::code_of([&] { Schedule::parse(text); }), base::Code::usage) << text;
  }
  EXPECT_EQ(base::testing::code_of([] { find_zone("Europe/Atlantis"); }), base::Code::usage);
}

/// What cron means, said as plainly as can be: every minute is asked.
bool cron_says(const std::vector<std::vector<int>>& fields, const std::vector<bool>& any,
               Timestamp moment) {
  const auto day = std::chrono::floor<std::chrono::days>(moment);
  const std::chrono::year_month_day ymd(day);
  const auto minute = std::chrono::duration_cast<minutes>(moment - day).count();
  const auto has = [&](std::size_t field, long value) {
    return any[field] || std::ranges::find(fields[field], value) != fields[field].end();
  };
  const auto weekday = static_cast<long>(std::chrono::weekday(day).c_encoding());
  const bool by_day = has(2, static_cast<unsigned>(ymd.day()));
  const bool by_weekday = has(4, weekday) || (weekday == 0 && has(4, 7));
  return has(0, minute % 60) && has(1, minute / 60) && has(3, static_cast<unsigned>(ymd.month())) &&
         (any[2] || any[4] ? by_day && by_weekday : by_day || by_weekday);
}

TEST(Schedule, agrees_with_every_minute_of_a_month_for_random_cron_expressions) {
  std::mt19937 random(7);
  const std::vector<std::pair<int, int>> bounds{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 7}};
  for (int round = 0; round < 60; ++round) {
    std::string text;
    std::vector<std::vector<int>> fields(5);
    std::vector<bool> any(5);
    for (std::size_t i = 0; i < 5; ++i) {
      any[i] = random() % (i < 2 ? 4 : 2) == 0;
      std::string field = any[i] ? "*" : "";
      for (auto n = any[i] ? 0UL : 1 + random() % 3; n > 0; --n) {
        const int value =
            i == 3 ? 3 + static_cast<int>(random() % 2)
                   : bounds[i].first +
                         static_cast<int>(random() % static_cast<unsigned>(bounds[i].second -
                                                                           bounds[i].first + 1));
        fields[i].push_back(value);
        field += (field.empty() ? "" : ",") + std::to_string(value);
      }
      text += field + " ";
    }
    std::vector<Timestamp> expected;
    const Timestamp from = at("2026-03-15 00:00");
    const Timestamp to = at("2026-04-14 00:00");
    for (Timestamp each = from + minutes(1); each <= to; each += minutes(1)) {
      if (cron_says(fields, any, each)) expected.push_back(each);
    }
    if (expected.size() > 3000) expected.resize(3000);
    const Schedule schedule = Schedule::parse(text);
    Timestamp now = from;
    for (const Timestamp each : expected) {
      now = schedule.next(now, find_zone("UTC")).value();
      ASSERT_EQ(now, each) << text;
    }
  }
}

TEST(Schedule, understands_or_refuses_whatever_it_is_given) {
  std::mt19937 random(11);
  const std::vector<std::string> words{
      "*",     "/",    "-",  ",",      "0",   "5",     "59",       "60",    "7",
      "mon",   "feb",  " ",  " ",      "1-5", "*/7",   "every",    "daily", "h",
      "02:00", "\xff", "31", "hourly", "min", "after", "999999999"};
  int understood = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto n = random() % 14; n > 0; --n) text += words[random() % words.size()];
    try {
      const Schedule schedule = Schedule::parse(text);
      const Timestamp now = at("2026-03-29 00:30");
      const auto next = schedule.next(now, find_zone("Europe/Berlin"));
      ASSERT_TRUE(schedule.after_backup() || (next && *next > now)) << text;
      ++understood;
    } catch (const base::Error& error) {
      ASSERT_EQ(error.code(), base::Code::usage) << text;
    }
  }
  EXPECT_GT(understood, 5);
}

TEST(Schedule, jitters_the_same_way_every_time_and_within_its_bound) {
  const minutes bound(5);
  EXPECT_EQ(jitter_of("a", "backup", bound), jitter_of("a", "backup", bound));
  EXPECT_NE(jitter_of("a", "backup", bound), jitter_of("b", "backup", bound));
  EXPECT_NE(jitter_of("a", "backup", bound), jitter_of("a", "drill", bound));
  EXPECT_EQ(jitter_of("a", "backup", minutes(0)), minutes(0));
  base::Microseconds highest{};
  for (int host = 0; host < 1000; ++host) {
    const auto jitter = jitter_of(std::to_string(host), "backup", bound);
    EXPECT_GE(jitter, minutes(0));
    EXPECT_LT(jitter, bound);
    highest = std::max(highest, jitter);
  }
  EXPECT_GT(highest, minutes(4)) << "they are spread over all of it";
}

}  // namespace
}  // namespace holdfast::serve
