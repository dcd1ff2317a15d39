#pragma once

// Uptime by month, held against what was promised.
//
// A month is one of the calendar, in UTC; for a probe's first month it begins with its first
// sample. The error budget is what may be down of it: 0.5 % for 99.5 %. Time that nobody looked is
// unknown: if the promise hangs on it, it is not known to be kept.

#include <optional>
#include <string>
#include <vector>

#include "service/probe_history.h"

namespace holdfast::service {

struct MonthUptime {
  enum class Verdict { kept, unknown, broken };

  std::string probe;
  std::chrono::year_month month;
  base::Timestamp from;
  base::Timestamp to;  ///< its end, or now
  Uptime found;
  base::Microseconds unknown{};
  base::Microseconds budget{};  ///< of the whole month
  Verdict verdict = Verdict::kept;

  base::Microseconds left() const { return budget - found.down; }
  /// Of the time that is known and was not planned; nullopt if there is none.
  std::optional<double> share() const;
};
std::string_view name_of(MonthUptime::Verdict verdict);
std::string to_string(std::chrono::year_month month);

/// Each probe, and each month since its first sample (or just `only`), in order.
std::vector<MonthUptime> uptime_by_month(ProbeHistory& history, double objective,
                                         base::Timestamp now,
                                         std::optional<std::chrono::year_month> only = {});

/// "2026-11". Throws Error(usage) for what is no month.
std::chrono::year_month parse_month(std::string_view text);

}  // namespace holdfast::service
