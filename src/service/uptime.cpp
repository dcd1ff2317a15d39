#include "service/uptime.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Microseconds;
using base::Timestamp;
using std::chrono::year_month;

Timestamp begin_of(year_month month) {
  return std::chrono::sys_days(month / 1);
}

year_month month_of(Timestamp time) {
  const std::chrono::year_month_day day(std::chrono::floor<std::chrono::days>(time));
  return day.year() / day.month();
}

MonthUptime month_uptime(ProbeHistory& history, const std::string& probe, Timestamp first,
                         year_month month, double objective, Timestamp now) {
  MonthUptime result;
  result.probe = probe;
  result.month = month;
  const Timestamp end = begin_of(month + std::chrono::months(1));
  result.from = std::max(first, begin_of(month));
  result.to = std::max(result.from, std::min(now, end));
  result.found = history.uptime(probe, result.from, result.to);
  result.unknown = result.to - result.from - result.found.known();
  const auto whole = static_cast<double>((end - result.from).count());
  result.budget = Microseconds(std::llround(whole * (1 - objective)));
  if (result.found.down > result.budget) {
    result.verdict = MonthUptime::Verdict::broken;
  } else if (result.found.down + result.unknown > result.budget) {
    result.verdict = MonthUptime::Verdict::unknown;
  }
  return result;
}

}  // namespace

std::optional<double> MonthUptime::share() const {
  const Microseconds counted = found.up + found.down;
  if (counted.count() == 0) return std::nullopt;
  return static_cast<double>(found.up.count()) / static_cast<double>(counted.count());
}

std::string_view name_of(MonthUptime::Verdict verdict) {
  switch (verdict) {
    case MonthUptime::Verdict::kept:
      return "kept";
    case MonthUptime::Verdict::unknown:
      return "unknown";
    case MonthUptime::Verdict::broken:
      break;
  }
  return "broken";
}

std::string to_string(year_month month) {
  return fmt::format("{:04}-{:02}", static_cast<int>(month.year()),
                     static_cast<unsigned>(month.month()));
}

std::vector<MonthUptime> uptime_by_month(ProbeHistory& history, double objective, Timestamp now,
                                         std::optional<year_month> only) {
  std::vector<MonthUptime> all;
  for (const auto& [probe, first] : history.probes()) {
    for (year_month month = month_of(first); month <= month_of(now);
         month += std::chrono::months(1)) {
      if (only && *only != month) continue;
      all.push_back(month_uptime(history, probe, first, month, objective, now));
    }
  }
  return all;
}

year_month parse_month(std::string_view text) {
  int year = 0;
  unsigned month = 0;
  const bool shaped = text.size() == 7 && text[4] == '-';
  const char* data = text.data();
  if (!shaped || std::from_chars(data, data + 4, year).ptr != data + 4 ||
      std::from_chars(data + 5, data + 7, month).ptr != data + 7 || month < 1 || month > 12 ||
      year < 1970) {
    throw base::Error(base::Code::usage, fmt::format("\"{}\" is not a month", text),
                      "write it as 2026-11");
  }
  return std::chrono::year(year) / std::chrono::month(month);
}

}  // namespace holdfast::service
