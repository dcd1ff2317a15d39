#include "operations/retention.h"

#include <date/date.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/testing.h"
#include "operations/wal_needs.h"

namespace holdfast::operations {
namespace {

using base::Timestamp;
using base::testing::Random;
using std::chrono::hours;

const Timestamp now = base::from_iso("2026-11-23T08:30:00.000000Z");
constexpr auto day = hours(24);
constexpr auto moment = base::Microseconds(1);

Candidate backup_at(Timestamp stopped, const std::string& id = "20261123T083000Z-4f2a") {
  Candidate made;
  made.backup.id = {id};
  made.backup.place = {"main", "7300000000000000001"};
  made.backup.started = stopped - hours(1);
  made.backup.stopped = stopped;
  made.backup.start = {0x1000000};
  made.backup.stop = {0x2000000};
  made.backup.timeline = {1};
  return made;
}

Candidate damaged(Candidate made) {
  made.backup.damaged.push_back({"base/1/1", 1, {0}});
  return made;
}

RetentionInput input_of(std::vector<Candidate> candidates, const KeepRules& rules) {
  return {std::move(candidates), {}, {}, rules, now};
}

std::vector<bool> kept(const RetentionInput& input) {
  std::vector<bool> result;
  for (const Decision& each : decide_retention(input)) result.push_back(each.kept());
  return result;
}

KeepRules rules_of(const std::function<void(KeepRules&)>& set) {
  KeepRules rules;
  set(rules);
  return rules;
}

const KeepRules week = rules_of([](KeepRules& rules) { rules.age = 7 * day; });
const KeepRules three = rules_of([](KeepRules& rules) { rules.count = 3; });

using Kept = std::vector<bool>;

TEST(Retention, GC14_keeps_a_backup_exactly_at_the_age_and_not_a_moment_longer) {
  EXPECT_EQ(kept(input_of(
                {backup_at(now - 7 * day - moment), backup_at(now - 7 * day), backup_at(now - day)},
                week)),
            (Kept{false, true, true}));
}

TEST(Retention, GC14_keeps_the_newest_good_backup_whatever_the_clock_says) {
  EXPECT_EQ(kept(input_of({backup_at(now - 900 * day), backup_at(now - 800 * day)}, week)),
            (Kept{false, true}));
  EXPECT_EQ(kept(input_of({backup_at(now - 900 * day), damaged(backup_at(now - 800 * day)),
                           damaged(backup_at(now - 1000 * day))},
                          week)),
            (Kept{true, true, false}));
}

TEST(Retention, B38_keeps_everything_if_nothing_good_can_take_its_place) {
  auto broken = backup_at(now - 20 * day);
  broken.usable = false;
  EXPECT_EQ(kept(input_of({damaged(backup_at(now - 30 * day)), broken}, week)), (Kept{true, true}));
}

TEST(Retention, INV3_keeps_the_newest_good_backup_of_each_system_until_that_is_let_go) {
  const auto of_other = [](Candidate made) {
    made.backup.place.system_id = "7400000000000000002";
    return made;
  };
  RetentionInput input =
      input_of({of_other(backup_at(now - 90 * day)), of_other(backup_at(now - 80 * day)),
                of_other(damaged(backup_at(now - 79 * day))), backup_at(now - 20 * day),
                backup_at(now - day)},
               week);
  EXPECT_EQ(kept(input), (Kept{false, true, false, false, true}));
  const auto decisions = decide_retention(input);
  EXPECT_TRUE(decisions[1].keeps_wal) << "it can be brought to where its system ended";
  input.let_go = {"7400000000000000002"};
  EXPECT_EQ(kept(input), (Kept{false, false, false, false, true}));

  const RetentionInput only_damaged =
      input_of({of_other(damaged(backup_at(now - 90 * day))),
                of_other(damaged(backup_at(now - 80 * day))), backup_at(now - day)},
               week);
  EXPECT_EQ(kept(only_damaged), (Kept{true, true, true})) << "nothing can take their place";
}

TEST(Retention, keeps_everything_without_rules) {
  EXPECT_EQ(kept(input_of({backup_at(now - 900 * day), backup_at(now)}, {})), (Kept{true, true}));
}

TEST(Retention, B40_decides_by_stop_time_and_not_by_name_or_order) {
  for (const bool reversed : {false, true}) {
    std::vector<Candidate> all = {backup_at(now - 4 * day, "20991231T000000Z-ffff"),
                                  backup_at(now - 3 * day, "20000101T000000Z-0000"),
                                  backup_at(now - 2 * day, "20500101T000000Z-0000"),
                                  backup_at(now - 1 * day, "19700101T000000Z-0000")};
    Kept expected = {false, true, true, true};
    if (reversed) {
      std::ranges::reverse(all);
      std::reverse(expected.begin(), expected.end());
    }
    EXPECT_EQ(kept(input_of(all, three)), expected);
  }
}

TEST(Retention, B39_keeps_a_backup_from_the_future_and_counts_it_for_nothing) {
  EXPECT_EQ(kept(input_of({backup_at(now - 3 * day), backup_at(now - 2 * day),
                           backup_at(now - 1 * day), backup_at(now + 300 * day)},
                          three)),
            (Kept{true, true, true, true}));
}

TEST(Retention, GC9_a_pin_keeps_its_backup_and_nothing_else) {
  auto input = input_of({backup_at(now - 30 * day, "a"), backup_at(now - 20 * day, "b"),
                         backup_at(now - 10 * day, "c"), backup_at(now, "d")},
                        week);
  input.pins.push_back({{"b"}, "1", true, now - day, now, "why"});
  input.pins.push_back({{"c"}, "2", true, now - day, now - moment, "over"});
  EXPECT_EQ(kept(input), (Kept{false, true, false, true}));
  EXPECT_NE(decide_retention(input)[1].reasons.front().find("why"), std::string::npos);
  input.pins[1].readable = false;
  EXPECT_EQ(kept(input), (Kept{false, true, true, true}));
}

TEST(Retention, keeps_what_cannot_be_judged) {
  auto held = backup_at(now - 100 * day);
  held.hold = "its map cannot be read";
  held.usable = false;
  EXPECT_EQ(kept(input_of({held, backup_at(now)}, week)), (Kept{true, true}));
}

TEST(Retention, damaged_backups_count_for_no_rule_and_go_with_those_of_their_age) {
  EXPECT_EQ(
      kept(input_of({backup_at(now - 5 * day), backup_at(now - 4 * day),
                     damaged(backup_at(now - 4 * day - moment)), damaged(backup_at(now - 3 * day)),
                     backup_at(now - 2 * day), backup_at(now - 1 * day), damaged(backup_at(now))},
                    three)),
      (Kept{false, true, false, true, true, true, true}));
}

TEST(Retention, keeps_the_newest_of_each_day_week_month_and_year_in_utc) {
  const auto at = [](const char* text) { return backup_at(base::from_iso(text)); };
  const std::vector<Candidate> all = {
      at("2024-12-31T23:59:59.999999Z"), at("2025-01-01T00:00:00.000000Z"),
      at("2026-11-15T23:59:59.999999Z"),  // Sunday
      at("2026-11-16T00:00:00.000000Z"),  // Monday
      at("2026-11-22T00:00:00.000000Z"), at("2026-11-22T23:59:59.999999Z"),
      at("2026-11-23T00:00:00.000000Z")};
  const auto with = [&](const auto& set) { return kept(input_of(all, rules_of(set))); };
  EXPECT_EQ(with([](KeepRules& r) { r.daily = 2; }), (Kept{0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(with([](KeepRules& r) { r.daily = 3; }), (Kept{0, 0, 0, 1, 0, 1, 1}));
  EXPECT_EQ(with([](KeepRules& r) { r.weekly = 3; }), (Kept{0, 0, 1, 0, 0, 1, 1}));
  EXPECT_EQ(with([](KeepRules& r) { r.monthly = 3; }), (Kept{1, 1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(with([](KeepRules& r) { r.yearly = 2; }), (Kept{0, 1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(with([](KeepRules& r) { r.yearly = 9; }), (Kept{1, 1, 0, 0, 0, 0, 1}));
}

TimelineUse timeline_one(Timestamp written) {
  return {"7300000000000000001", postgres::TimelineHistory(postgres::Timeline{1}), written, true};
}

TEST(Retention, GC12_a_window_keeps_its_anchor_and_only_that_one_must_keep_wal) {
  auto rules = rules_of([](KeepRules& r) {
    r.window = 2 * day;
    r.monthly = 2;
  });
  auto input = input_of({backup_at(now - 40 * day), backup_at(now - 3 * day),
                         backup_at(now - 2 * day), backup_at(now - day), backup_at(now)},
                        rules);
  input.timelines = {timeline_one(now)};
  const auto decisions = decide_retention(input);
  EXPECT_EQ(kept(input), (Kept{true, false, true, false, true}));
  EXPECT_FALSE(decisions[0].keeps_wal);
  EXPECT_TRUE(decisions[2].keeps_wal);
  // As long as the window has not filled up, it begins with the oldest backup.
  input.now = now - 41 * day + moment;
  for (Candidate& each : input.candidates) each.backup.stopped += day;
  input.now = now - 38 * day;
  input.candidates[1].backup.stopped = now - 39 * day + moment;
  EXPECT_TRUE(decide_retention(input)[0].keeps_wal);
}

TEST(Retention, keeps_a_way_to_every_timeline_that_is_written_to) {
  // Timeline 2 left timeline 1 after the first backup; the others are of a server that went on.
  auto old = backup_at(now - 30 * day);
  auto elsewhere = backup_at(now - day);
  elsewhere.backup.stop = {0x9000000};
  auto input = input_of({old, elsewhere}, week);
  const postgres::TimelineHistory second(postgres::Timeline{2}, "1\t0/3000000\tx\n");
  input.timelines = {timeline_one(now), {"7300000000000000001", second, now, false}};
  input.timelines[0].newest = false;
  EXPECT_EQ(kept(input), (Kept{true, true})) << "WAL arrives on timeline 2";
  EXPECT_TRUE(decide_retention(input)[0].keeps_wal);
  input.timelines[1].last_written = now - 2 * day;
  EXPECT_EQ(kept(input), (Kept{false, true})) << "timeline 2 was left";
  input.timelines[1].newest = true;
  EXPECT_EQ(kept(input), (Kept{true, true})) << "the newest timeline is never lost";
  input.rules.window = 3 * day;
  input.timelines[1].newest = false;
  EXPECT_EQ(kept(input), (Kept{true, true})) << "the window reaches back to timeline 2";
  input.timelines.erase(input.timelines.begin());
  EXPECT_EQ(kept(input), (Kept{true, true}));
  input.timelines[0].system_id = "1";
  EXPECT_EQ(kept(input), (Kept{false, true})) << "another system's timelines are others";
}

TEST(Retention, without_a_window_all_that_is_kept_keeps_wal) {
  auto input = input_of({backup_at(now - 30 * day, "a"), backup_at(now)}, week);
  input.pins.push_back({{"a"}, "1", true, now, now + day, "x"});
  for (const Decision& each : decide_retention(input)) EXPECT_TRUE(each.keeps_wal);
}

/// The rules once more, each as its own sentence, with nothing in common with the code under test.
class Oracle {
 public:
  explicit Oracle(const RetentionInput& input) : in_(input) {}

  bool keeps(const Candidate& each) const {
    const Timestamp stop = each.backup.stopped;
    if (stop > in_.now || !each.hold.empty() || is_pinned(each)) return true;
    std::vector<Timestamp> good = good_stops();
    if (good.empty()) return true;
    const bool newest = stop >= good.back();
    if (newest) return true;
    Timestamp recent = good.back();
    if (in_.rules.age) recent = std::min(recent, in_.now - *in_.rules.age);
    if (in_.rules.count) {
      recent = good[good.size() > *in_.rules.count ? good.size() - *in_.rules.count : 0];
    }
    if (stop >= recent) return true;
    if (!each.good()) return false;
    return by_period(each, "%Y-%m-%d", in_.rules.daily) ||
           by_period(each, "%G-%V", in_.rules.weekly) ||
           by_period(each, "%Y-%m", in_.rules.monthly) || by_period(each, "%Y", in_.rules.yearly);
  }

 private:
  bool is_pinned(const Candidate& each) const {
    return std::ranges::any_of(in_.pins, [&](const auto& pin) {
      return pin.backup == each.backup.id && (!pin.readable || in_.now <= pin.until);
    });
  }
  std::vector<Timestamp> good_stops() const {
    std::vector<Timestamp> stops;
    for (const Candidate& each : in_.candidates) {
      if (each.good() && each.backup.stopped <= in_.now) stops.push_back(each.backup.stopped);
    }
    std::ranges::sort(stops);
    return stops;
  }
  /// By the names of periods, as a calendar prints them.
  bool by_period(const Candidate& each, const char* format, std::uint32_t count) const {
    std::map<std::string, Timestamp> newest;
    for (const Timestamp stop : good_stops()) newest[date::format(format, stop)] = stop;
    const std::string mine = date::format(format, each.backup.stopped);
    if (newest.at(mine) != each.backup.stopped) return false;
    return std::ranges::count_if(newest, [&](const auto& other) { return other.first > mine; }) <
           static_cast<std::ptrdiff_t>(count);
  }

  const RetentionInput& in_;
};

TEST(Retention, agrees_with_the_rules_spelt_out_for_any_backups_pins_and_rules) {
  for (std::uint64_t seed = 1; seed <= base::testing::fuzz_iterations(1500); ++seed) {
    Random random(seed);
    RetentionInput input = input_of({}, {});
    const std::size_t backups = random.below(25);
    const std::size_t spread = 1 + random.below(800);
    for (std::size_t i = 0; i < backups; ++i) {
      auto stopped = now - hours(random.below(24 * spread));
      if (random.chance(5)) stopped = now + hours(1 + random.below(1000));
      if (random.chance(10)) stopped = now - 7 * day;
      if (random.chance(10) && i > 0) stopped = input.candidates.back().backup.stopped;
      Candidate made = backup_at(stopped, std::to_string(random.below(1000)));
      if (random.chance(15)) made = damaged(made);
      made.usable = !random.chance(10);
      if (random.chance(3)) made.hold = "held";
      input.candidates.push_back(made);
      if (!random.chance(15)) continue;
      input.pins.push_back({made.backup.id, "p", random.chance(90), now,
                            now + hours(random.below(10)) - hours(5), "x"});
    }
    KeepRules& rules = input.rules;
    if (random.chance(40)) rules.age = day * (1 + random.below(30));
    if (!rules.age && random.chance(50)) rules.count = 1 + random.below(8);
    if (random.chance(40)) rules.daily = static_cast<std::uint32_t>(random.below(9));
    if (random.chance(40)) rules.weekly = static_cast<std::uint32_t>(random.below(6));
    if (random.chance(40)) rules.monthly = static_cast<std::uint32_t>(random.below(14));
    if (random.chance(40)) rules.yearly = static_cast<std::uint32_t>(random.below(4));
    if (!rules.expire_anything()) rules.count = 1;
    const auto decisions = decide_retention(input);
    ASSERT_EQ(decisions.size(), input.candidates.size());
    for (const Decision& each : decisions) {
      ASSERT_EQ(each.kept(), Oracle(input).keeps(each.candidate))
          << "seed " << seed << ", " << base::to_string(each.backup().stopped);
    }
  }
}

}  // namespace
}  // namespace holdfast::operations
