#include "operations/retention.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

namespace holdfast::operations {

namespace {

using base::Timestamp;
using std::chrono::days;

/// Which day, week, month or year a moment is in; later ones are greater.
using Period = std::function<std::int64_t(Timestamp)>;

std::int64_t day_of(Timestamp time) {
  return std::chrono::floor<days>(time).time_since_epoch().count();
}

std::int64_t week_of(Timestamp time) {
  // 1970-01-01 was a Thursday: three days after the Monday before.
  const std::int64_t since_monday = day_of(time) + 3;
  return since_monday >= 0 ? since_monday / 7 : (since_monday - 6) / 7;
}

std::int64_t month_of(Timestamp time) {
  const std::chrono::year_month_day date{std::chrono::floor<days>(time)};
  return std::int64_t{static_cast<int>(date.year())} * 12 + static_cast<unsigned>(date.month());
}

std::int64_t year_of(Timestamp time) {
  return static_cast<int>(std::chrono::year_month_day{std::chrono::floor<days>(time)}.year());
}

class Decider {
 public:
  explicit Decider(const RetentionInput& input) : input_(input), rules_(input.rules) {
    for (const Candidate& each : input.candidates) decisions_.push_back({each, {}, false});
    for (Decision& each : decisions_) {
      if (is_future(each)) {
        each.reasons.emplace_back("it stopped in the future: a clock is wrong");
        each.keeps_wal = true;
      } else if (each.candidate.good()) {
        good_.push_back(&each);
      }
    }
    std::ranges::sort(good_, std::greater{}, [](const Decision* each) { return stop_of(*each); });
  }

  std::vector<Decision> decide() {
    keep_held();
    if (good_.empty() || !rules_.expire_anything()) {
      const char* why =
          good_.empty() ? "there is no good backup to take its place" : "no rule lets anything go";
      for (Decision& each : decisions_) keep(each, why);
    }
    if (!good_.empty()) {
      keep_each_system();
      keep_newest(1, "the newest good backup");
      for (const TimelineUse& timeline : input_.timelines) keep_leading(timeline);
    }
    if (rules_.expire_anything()) {
      keep_recent();
      keep_periods(rules_.daily, day_of, "daily");
      keep_periods(rules_.weekly, week_of, "weekly");
      keep_periods(rules_.monthly, month_of, "monthly");
      keep_periods(rules_.yearly, year_of, "yearly");
    }
    for (Decision& each : decisions_) {
      // Without a window all that is kept can be brought forward to now.
      if (!rules_.window && each.kept()) each.keeps_wal = true;
    }
    return std::move(decisions_);
  }

 private:
  static Timestamp stop_of(const Decision& each) { return each.backup().stopped; }
  bool is_future(const Decision& each) const { return stop_of(each) > input_.now; }
  static void keep(Decision& each, std::string_view why) {
    if (std::ranges::find(each.reasons, why) == each.reasons.end()) each.reasons.emplace_back(why);
  }

  void keep_held() {
    for (Decision& each : decisions_) {
      if (!each.candidate.hold.empty()) {
        keep(each, each.candidate.hold);
        each.keeps_wal = true;
      }
      for (const repository::Pin& pin : input_.pins) {
        if (pin.backup != each.backup().id || !pin.holds_at(input_.now)) continue;
        keep(each, pin.readable
                       ? fmt::format("pinned until {}: {}", base::to_string(pin.until), pin.reason)
                       : "pinned, by a pin that cannot be read");
      }
    }
  }

  /// A system that a cluster has left may be the one that it goes back to.
  void keep_each_system() {
    std::map<std::string, const Decision*> newest;
    for (const Decision* each : good_) newest.try_emplace(each->backup().place.system_id, each);
    for (Decision& each : decisions_) {
      const std::string& system = each.backup().place.system_id;
      if (input_.let_go.contains(system)) continue;
      const auto found = newest.find(system);
      if (found == newest.end()) {
        keep(each, "there is no good backup of its system to take its place");
      } else if (each.candidate.good() && !is_future(each) &&
                 stop_of(each) == stop_of(*found->second)) {
        if (found->second != good_.front()) keep(each, "the newest good backup of its system");
        each.keeps_wal = true;
      }
    }
  }

  /// The newest `count` good ones, and others that are as new.
  void keep_newest(std::size_t count, std::string_view why) {
    const Timestamp limit = stop_of(*good_[std::min(count, good_.size()) - 1]);
    for (Decision* each : good_) {
      if (stop_of(*each) < limit) continue;
      keep(*each, why);
      if (count == 1) each->keeps_wal = true;
    }
  }

  /// keep.backups, for good ones, and for damaged ones among them.
  void keep_recent() {
    Timestamp oldest = stop_of_newest();
    if (rules_.age) {
      // A backup exactly at the age is kept (TRAPS GC14).
      oldest = std::min(oldest, input_.now - *rules_.age);
      for (Decision* each : good_) {
        if (stop_of(*each) >= oldest) keep(*each, "recent");
      }
    } else if (rules_.count && !good_.empty()) {
      keep_newest(*rules_.count, "recent");
      oldest = stop_of(*good_[std::min<std::size_t>(*rules_.count, good_.size()) - 1]);
    }
    for (Decision& each : decisions_) {
      if (!each.candidate.good() && !is_future(each) && stop_of(each) >= oldest) {
        keep(each, "recent, though it is not good");
      }
    }
  }

  Timestamp stop_of_newest() const { return good_.empty() ? input_.now : stop_of(*good_.front()); }

  /// The newest good ones of each of the last `count` periods that have one.
  void keep_periods(std::uint32_t count, const Period& period, std::string_view why) {
    std::set<std::int64_t> seen;
    std::map<std::int64_t, Timestamp> newest;
    for (Decision* each : good_) {  // from the newest on
      const std::int64_t number = period(stop_of(*each));
      if (!seen.contains(number) && seen.size() == count) return;
      seen.insert(number);
      const auto [first, fresh] = newest.try_emplace(number, stop_of(*each));
      if (first->second == stop_of(*each)) keep(*each, why);
    }
  }

  bool is_in_use(const TimelineUse& timeline) const {
    if (timeline.newest || timeline.last_written >= stop_of_newest()) return true;
    return rules_.window && timeline.last_written >= input_.now - *rules_.window;
  }

  /// A good backup from which a timeline that is in use can be reached; with a window the newest
  /// one that is at least so old, or the oldest that there is.
  void keep_leading(const TimelineUse& timeline) {
    if (!is_in_use(timeline) || input_.let_go.contains(timeline.system_id)) return;
    std::vector<Decision*> leading;  // the newest first
    for (Decision* each : good_) {
      const BackupInfo& backup = each->backup();
      if (backup.place.system_id == timeline.system_id &&
          timeline.history.passes(backup.timeline, backup.stop)) {
        leading.push_back(each);
      }
    }
    if (leading.empty()) return;
    Timestamp anchor = stop_of(*leading.front());
    if (rules_.window) {
      const Timestamp begin = input_.now - *rules_.window;
      const auto old_enough = std::ranges::find_if(
          leading, [&](const Decision* each) { return stop_of(*each) <= begin; });
      anchor = stop_of(old_enough == leading.end() ? *leading.back() : **old_enough);
    }
    for (Decision* each : leading) {
      if (stop_of(*each) != anchor) continue;
      const std::uint32_t number = timeline.history.timeline().value;
      if (rules_.window) keep(*each, fmt::format("recovery window of timeline {}", number));
      if (!each->kept()) keep(*each, fmt::format("leads to timeline {}", number));
      each->keeps_wal = true;
    }
  }

  const RetentionInput& input_;
  const KeepRules& rules_;
  std::vector<Decision> decisions_;
  std::vector<Decision*> good_;  ///< not in the future; the newest first
};

}  // namespace

std::vector<Decision> decide_retention(const RetentionInput& input) {
  return Decider(input).decide();
}

}  // namespace holdfast::operations
