#pragma once

// When something is due: what people write ("daily 02:00", "every 15min", "0 2 * * mon-fri"), and
// the moments that it means.
//
// All of it is a pure function of the expression, the zone and the clock that it is given. A local
// time that a clock change skips is due once, at the first moment after; one that comes twice is
// due once, the first time. Expressions that name every hour follow time as it passes: one that is
// skipped is not made up for, and one that comes twice counts twice. "every N" counts from 1970 in
// UTC, whatever the zone. Throws Error(usage) for what cannot be understood, and for what is never
// due ("0 0 31 2 *").

#include <bitset>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"

namespace date {
class time_zone;
}

namespace holdfast::serve {

/// A zone by its name; empty: the system's. Throws Error(usage) if nobody knows it.
const date::time_zone* find_zone(const std::string& name);

class Schedule {
 public:
  /// "hourly", "daily HH:MM", "weekly DAY HH:MM", "every N" with a unit, a cron expression of five
  /// fields, or "after every backup".
  static Schedule parse(std::string_view text);

  /// It goes by another job's success, and never by the clock.
  bool after_backup() const { return after_backup_; }
  /// The first moment after `time` at which it is due; nullopt only for "after every backup".
  std::optional<base::Timestamp> next(base::Timestamp time, const date::time_zone* zone) const;
  /// The newest moment in (last, now] at which it was due. Of several that were missed only that
  /// one counts, so they are caught up once. A `last` that is more than a day ahead of `now` was
  /// written by a clock that was wrong, and does not keep anything from being due.
  std::optional<base::Timestamp> due(base::Timestamp last, base::Timestamp now,
                                     const date::time_zone* zone) const;

  bool operator==(const Schedule& other) const = default;

 private:
  static Schedule parse_cron(std::string_view text);
  bool matches_day(std::int64_t day) const;
  std::optional<base::Timestamp> first_on(std::int64_t day, base::Timestamp after,
                                          const date::time_zone* zone) const;

  bool after_backup_ = false;
  base::Microseconds every_{};  ///< 0: by the fields
  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;
  std::bitset<13> months_;
  std::bitset<7> weekdays_;  ///< 0 is Sunday
  bool any_hour_ = false;
  bool any_day_ = false;
  bool any_weekday_ = false;
};

/// How much later than others a host begins a job: always the same, less than `bound`.
base::Microseconds jitter_of(std::string_view host, std::string_view job, base::Microseconds bound);

}  // namespace holdfast::serve
