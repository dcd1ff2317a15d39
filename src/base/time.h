#pragma once

// Moments in time, to the microsecond, always UTC inside; a zone only matters when a person reads
// or writes one.
//
// What a person writes is either understood exactly or refused: "13am", a local time that a clock
// change skipped or repeated, and a date without a time are refused (TRAPS WF14).

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::base {

using Timestamp = std::chrono::sys_time<std::chrono::microseconds>;
using Microseconds = std::chrono::microseconds;

Timestamp now();

/// "2026-11-23 08:30:00.123456 UTC"; fractions only where there are any.
std::string to_string(Timestamp time);
/// "2026-11-23T08:30:00.123456Z", always with six digits: sorts as text.
std::string to_iso(Timestamp time);
/// What to_iso wrote; throws Error(corrupt) otherwise.
Timestamp from_iso(std::string_view text);

struct ParsedTime {
  Timestamp time;
  bool zone_was_assumed;  ///< the text named no zone, so `default_zone` was used
};

/// Reads "2026-11-23 08:30[:00[.5]] [ZONE]", also with a "T". ZONE is Z, UTC, +01, +01:00, +0100 or
/// a name such as Europe/Berlin. Throws Error(usage) with a hint for anything else.
ParsedTime parse_time(std::string_view text, std::string_view default_zone);

/// Reads how long something takes or is kept: a whole number and a unit, "200ms", "90s", "5min",
/// "4h", "7d" or "2w". Throws Error(usage) with a hint for anything else: no sign, no fraction, no
/// second part, nothing longer than 1000 years (TRAPS CC7).
Microseconds parse_duration(std::string_view text);

/// "1.2 s", "3 min 20 s", "4 h 5 min": for people.
std::string to_string_short(Microseconds duration);

}  // namespace holdfast::base
