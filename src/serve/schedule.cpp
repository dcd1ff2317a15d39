#include "serve/schedule.h"

#include <date/date.h>
#include <date/tz.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <vector>

#include "base/error.h"

namespace holdfast::serve {

namespace {

using base::Code;
using base::Error;
using base::Microseconds;
using base::Timestamp;
using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;

/// A zone's clock is never further from UTC.
constexpr hours furthest_zone{15};
/// Between two 29ths of February around a year such as 2100; and their weekdays.
constexpr int longest_wait_days = 41 * 366;

constexpr std::array<std::string_view, 7> weekday_names{"sun", "mon", "tue", "wed",
                                                        "thu", "fri", "sat"};
constexpr std::array<std::string_view, 12> month_names{"jan", "feb", "mar", "apr", "may", "jun",
                                                       "jul", "aug", "sep", "oct", "nov", "dec"};

[[noreturn]] void refuse(std::string_view text, std::string_view why) {
  throw Error(Code::usage, fmt::format("cannot use \"{}\" as a schedule: {}", text, why),
              "write \"daily 02:00\", \"hourly\", \"every 15min\", \"weekly sun 03:00\" or a cron "
              "expression such as \"0 2 * * *\"");
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (const std::string_view each : split(text, ' ')) {
    if (!each.empty()) words.push_back(each);
  }
  return words;
}

std::optional<unsigned> number(std::string_view text) {
  unsigned value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || text.size() > 4 || error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// One of the five: which values it may have, and what they are called.
struct Field {
  std::string_view what;
  unsigned lowest;
  unsigned highest;
  std::span<const std::string_view> names{};  ///< of `lowest` and those after it

  std::optional<unsigned> value(std::string_view text) const {
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (text == names[i]) return lowest + static_cast<unsigned>(i);
    }
    const auto found = number(text);
    return found && *found >= lowest && *found <= highest ? found : std::nullopt;
  }
};

/// "*", "5", "1-5", "*/15", "10-30/5" and lists of these.
template <std::size_t Size>
std::bitset<Size> values_of(const Field& field, std::string_view text, std::string_view whole) {
  const auto wrong = [&](std::string_view part) {
    refuse(whole, fmt::format("\"{}\" is not a {}", part, field.what));
  };
  std::bitset<Size> found;
  for (const std::string_view part : split(text, ',')) {
    const auto by_step = split(part, '/');
    const auto step = by_step.size() == 2 ? number(by_step[1]) : std::optional(1U);
    if (by_step.size() > 2 || !step || *step == 0) wrong(part);
    const auto ends = split(by_step[0], '-');
    if (ends.size() > 2) wrong(part);
    const bool any = by_step[0] == "*";
    const auto first = any ? field.lowest : field.value(ends.front());
    const bool open = any || (by_step.size() == 2 && ends.size() == 1);
    const auto last = open ? field.highest : field.value(ends.back());
    if (!first || !last || *first > *last) wrong(part);
    for (unsigned each = *first; each <= *last; each += *step) found.set(each % Size);
  }
  return found;
}

/// "02:00", as the first two fields of cron.
std::string minute_and_hour(std::string_view text, std::string_view whole) {
  const auto parts = split(text, ':');
  const auto hour = number(parts.front());
  const auto minute = parts.size() == 2 ? number(parts[1]) : std::nullopt;
  if (!hour || !minute || *hour > 23 || *minute > 59 || parts[1].size() != 2) {
    refuse(whole, fmt::format("\"{}\" is not a time of day", text));
  }
  return fmt::format("{} {}", *minute, *hour);
}

}  // namespace

const date::time_zone* find_zone(const std::string& name) {
  try {
    return name.empty() ? date::current_zone() : date::locate_zone(name);
  } catch (const std::exception&) {
    if (name.empty()) return date::locate_zone("Etc/UTC");
    throw Error(Code::usage, fmt::format("\"{}\" is no time zone that is known here", name),
                "write a name such as \"Europe/Berlin\" or \"UTC\"");
  }
}

Schedule Schedule::parse(std::string_view given) {
  std::string text(given);
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto words = words_of(text);
  if (words.empty()) refuse(given, "it is empty");
  Schedule schedule;
  if (words == std::vector<std::string_view>{"after", "every", "backup"}) {
    schedule.after_backup_ = true;
    return schedule;
  }
  if (words[0] == "every" && words.size() == 2) {
    schedule.every_ = base::parse_duration(words[1]);
    if (schedule.every_ < minutes(1)) refuse(given, "it is more often than once a minute");
    return schedule;
  }
  if (words[0] == "hourly" && words.size() == 1) return parse_cron("0 * * * *");
  if (words[0] == "daily" && words.size() == 2) {
    return parse_cron(minute_and_hour(words[1], given) + " * * *");
  }
  if (words[0] == "weekly" && words.size() == 3) {
    if (std::ranges::find(weekday_names, words[1]) == weekday_names.end()) {
      refuse(given, fmt::format("\"{}\" is not a day of the week (sun to sat)", words[1]));
    }
    return parse_cron(fmt::format("{} * * {}", minute_and_hour(words[2], given), words[1]));
  }
  return parse_cron(text);
}

Schedule Schedule::parse_cron(std::string_view text) {
  const auto words = words_of(text);
  if (words.size() != 5) refuse(text, "it is none that is known, and cron has five fields");
  Schedule schedule;
  schedule.minutes_ = values_of<60>({"minute", 0, 59}, words[0], text);
  schedule.hours_ = values_of<24>({"hour", 0, 23}, words[1], text);
  schedule.days_ = values_of<32>({"day of the month", 1, 31}, words[2], text);
  schedule.months_ = values_of<13>({"month", 1, 12, month_names}, words[3], text);
  schedule.weekdays_ = values_of<7>({"day of the week", 0, 7, weekday_names}, words[4], text);
  schedule.any_hour_ = schedule.hours_.all();
  schedule.any_day_ = words[2].starts_with("*");
  schedule.any_weekday_ = words[4].starts_with("*");
  for (std::int64_t day = 0; day < longest_wait_days; ++day) {
    if (schedule.matches_day(day)) return schedule;
  }
  refuse(text, "there is no such day");
}

/// As cron has it: if both days are limited, either will do.
bool Schedule::matches_day(std::int64_t day) const {
  const date::local_days local{date::days(day)};
  const date::year_month_day ymd(local);
  if (!months_.test(static_cast<unsigned>(ymd.month()))) return false;
  const bool by_day = days_.test(static_cast<unsigned>(ymd.day()));
  const bool by_weekday = weekdays_.test(date::weekday(local).c_encoding());
  return any_day_ || any_weekday_ ? by_day && by_weekday : by_day || by_weekday;
}

std::optional<Timestamp> Schedule::first_on(std::int64_t day, Timestamp after,
                                            const date::time_zone* zone) const {
  std::optional<Timestamp> first;
  const auto offer = [&](Timestamp moment) {
    if (moment > after && (!first || moment < *first)) first = moment;
  };
  for (unsigned minute = 0; minute < 24 * 60; ++minute) {
    if (!hours_.test(minute / 60) || !minutes_.test(minute % 60)) continue;
    const date::local_seconds local = date::local_days{date::days(day)} + minutes(minute);
    const Timestamp as_utc(local.time_since_epoch());
    if (as_utc + furthest_zone <= after) continue;
    if (first && as_utc - furthest_zone > *first) break;
    const date::local_info info = zone->get_info(local);
    if (info.result == date::local_info::nonexistent) {
      const Timestamp resumes(info.second.begin.time_since_epoch());
      // An hour of which only a part is skipped (Lord Howe Island) is not over yet.
      const Timestamp hour_ends = std::chrono::floor<hours>(as_utc) + hours(1);
      if (!any_hour_ || resumes + info.second.offset < hour_ends) offer(resumes);
      continue;
    }
    offer(as_utc - info.first.offset);
    if (info.result == date::local_info::ambiguous && any_hour_) offer(as_utc - info.second.offset);
  }
  return first;
}

std::optional<Timestamp> Schedule::next(Timestamp time, const date::time_zone* zone) const {
  if (after_backup_) return std::nullopt;
  if (every_.count() > 0) {
    const auto passed = time.time_since_epoch() / every_ + (time.time_since_epoch().count() >= 0);
    return Timestamp(passed * every_);
  }
  const std::int64_t today = std::chrono::floor<days>(time).time_since_epoch().count();
  for (std::int64_t day = today - 1; day < today + longest_wait_days; ++day) {
    if (!matches_day(day)) continue;
    const auto first = first_on(day, time, zone);
    if (!first) continue;
    // Where clocks are put back over midnight, the next day begins before this one has ended.
    const auto other = matches_day(day + 1) ? first_on(day + 1, time, zone) : std::nullopt;
    return other ? std::min(*first, *other) : first;
  }
  return std::nullopt;
}

std::optional<Timestamp> Schedule::due(Timestamp last, Timestamp now,
                                       const date::time_zone* zone) const {
  if (last > now + days(1)) last = now - days(1);
  // The newest moment is looked for nearby first, as there may be very many since `last`.
  for (const minutes back : {minutes(60), minutes(24 * 60), minutes(32 * 24 * 60),
                             minutes(longest_wait_days * 24 * 60)}) {
    const Timestamp from = std::max(last, now - back);
    std::optional<Timestamp> newest;
    for (auto each = next(from, zone); each && *each <= now; each = next(*each, zone)) {
      newest = each;
    }
    if (newest || from == last) return newest;
  }
  return std::nullopt;
}

Microseconds jitter_of(std::string_view host, std::string_view job, Microseconds bound) {
  if (bound.count() <= 0) return Microseconds(0);
  std::uint64_t hash = 14695981039346656037U;  // FNV-1a: the same on every machine and version
  for (const std::string_view part : {host, std::string_view("\0", 1), job}) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  }
  hash ^= hash >> 32;
  return Microseconds(
      static_cast<Microseconds::rep>(hash % static_cast<std::uint64_t>(bound.count())));
}

}  // namespace holdfast::serve
