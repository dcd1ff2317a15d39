#include "base/time.h"

#include <date/date.h>
#include <date/tz.h>

#include <array>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace holdfast::base {

namespace {

using std::chrono::floor;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

struct Fields {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, micro = 0;
};

/// Walks over what a person wrote.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text), left_(text) {}

  bool take(char c) {
    if (left_.empty() || left_.front() != c) return false;
    left_.remove_prefix(1);
    return true;
  }
  int digits(int count) {
    int value = 0;
    for (int i = 0; i < count; ++i) {
      if (left_.empty() || left_.front() < '0' || left_.front() > '9') refuse();
      value = value * 10 + (left_.front() - '0');
      left_.remove_prefix(1);
    }
    return value;
  }
  bool at_digit() const { return !left_.empty() && left_.front() >= '0' && left_.front() <= '9'; }
  void skip_spaces() {
    while (take(' ')) {
    }
  }
  std::string_view rest() const { return left_; }

  [[noreturn]] void refuse(std::string_view why = "it is not a time that can be understood") const {
    throw Error(Code::usage, fmt::format("cannot use \"{}\" as a time: {}", text_, why),
                "write it as \"2026-11-23 08:30:00+00\" or \"2026-11-23 08:30:00 Europe/Berlin\"");
  }

 private:
  std::string_view text_;
  std::string_view left_;
};

Fields read_fields(Scanner& scan) {
  Fields f;
  f.year = scan.digits(4);
  if (!scan.take('-')) scan.refuse();
  f.month = scan.digits(2);
  if (!scan.take('-')) scan.refuse();
  f.day = scan.digits(2);
  if (!scan.take('T') && !scan.take(' ')) scan.refuse("it has a date but no time of day");
  scan.skip_spaces();
  f.hour = scan.digits(2);
  if (!scan.take(':')) scan.refuse();
  f.minute = scan.digits(2);
  if (scan.take(':')) {
    f.second = scan.digits(2);
    if (scan.take('.')) {
      int scale = 100000;
      if (!scan.at_digit()) scan.refuse();
      while (scan.at_digit()) {
        const int digit = scan.digits(1);
        if (scale == 0 && digit != 0) scan.refuse("it is finer than a microsecond");
        f.micro += digit * scale;
        scale /= 10;
      }
    }
  }
  return f;
}

date::local_time<Microseconds> local_time_of(const Fields& f, const Scanner& scan) {
  const date::year_month_day day{date::year(f.year), date::month(static_cast<unsigned>(f.month)),
                                 date::day(static_cast<unsigned>(f.day))};
  if (!day.ok() || f.hour > 23 || f.minute > 59 || f.second > 59) {
    scan.refuse("there is no such day or hour");
  }
  return date::local_days(day) + hours(f.hour) + minutes(f.minute) + seconds(f.second) +
         Microseconds(f.micro);
}

Timestamp in_named_zone(const date::local_time<Microseconds>& local, const std::string& name,
                        const Scanner& scan) {
  const date::time_zone* zone = nullptr;
  try {
    zone = date::locate_zone(name);
  } catch (const std::exception&) {
    scan.refuse(fmt::format("\"{}\" is no time zone that is known here", name));
  }
  const date::local_info info = zone->get_info(local);
  if (info.result == date::local_info::nonexistent) {
    scan.refuse("the clocks were put forward over it, so it never was");
  }
  if (info.result == date::local_info::ambiguous) {
    scan.refuse("the clocks were put back, so it was twice; write the offset, as in +01");
  }
  return Timestamp(local.time_since_epoch() - info.first.offset);
}

}  // namespace

Timestamp now() {
  return floor<Microseconds>(std::chrono::system_clock::now());
}

std::string to_string(Timestamp time) {
  const auto whole = floor<seconds>(time);
  const auto micros = (time - whole).count();
  std::string text = date::format("%Y-%m-%d %H:%M:%S", whole);
  if (micros != 0) {
    text += fmt::format(".{:06}", micros);
    while (text.back() == '0') text.pop_back();
  }
  return text + " UTC";
}

std::string to_iso(Timestamp time) {
  const auto whole = floor<seconds>(time);
  return date::format("%Y-%m-%dT%H:%M:%S", whole) + fmt::format(".{:06}Z", (time - whole).count());
}

Timestamp from_iso(std::string_view text) {
  try {
    const ParsedTime parsed = parse_time(text, "UTC");
    if (!parsed.zone_was_assumed && to_iso(parsed.time) == text) return parsed.time;
  } catch (const Error&) {
    // said below, as damage rather than as wrong usage
  }
  fail(Code::corrupt, "\"{}\" is not a time as Holdfast writes it", text);
}

ParsedTime parse_time(std::string_view text, std::string_view default_zone) {
  Scanner scan(text);
  const Fields fields = read_fields(scan);
  const auto local = local_time_of(fields, scan);
  scan.skip_spaces();
  if (scan.rest().empty()) {
    return {in_named_zone(local, std::string(default_zone), scan), true};
  }
  const bool east = scan.take('+');
  if (east || scan.take('-')) {
    const int hour = scan.digits(2);
    const int minute = scan.take(':') || scan.at_digit() ? scan.digits(2) : 0;
    if (!scan.rest().empty() || hour > 15 || minute > 59) scan.refuse();
    const minutes offset(hour * 60 + minute);
    return {Timestamp(local.time_since_epoch() - (east ? offset : -offset)), false};
  }
  std::string zone(scan.rest());
  if (zone == "Z" || zone == "z") zone = "UTC";
  if (zone.find(' ') != std::string::npos) scan.refuse();
  return {in_named_zone(local, zone, scan), false};
}

Microseconds parse_duration(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    throw Error(Code::usage, fmt::format("cannot use \"{}\" as a duration: {}", text, why),
                "write a whole number and ms, s, min, h, d or w, as in \"7d\"");
  };
  struct Unit {
    std::string_view name;
    Microseconds length;
  };
  static constexpr std::array<Unit, 6> units{{{"ms", std::chrono::milliseconds(1)},
                                              {"s", seconds(1)},
                                              {"min", std::chrono::minutes(1)},
                                              {"h", std::chrono::hours(1)},
                                              {"d", std::chrono::hours(24)},
                                              {"w", std::chrono::hours(7 * 24)}}};
  constexpr Microseconds longest = std::chrono::hours(365 * 1000 * 24);
  std::int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, count);
  if (failed == std::errc::result_out_of_range) refuse("it is longer than 1000 years");
  // from_chars takes a minus sign.
  if (failed != std::errc() || text.front() == '-') refuse("it does not begin with a number");
  const std::string_view name = text.substr(static_cast<std::size_t>(stop - text.data()));
  for (const Unit& unit : units) {
    if (unit.name != name) continue;
    if (count > longest / unit.length) refuse("it is longer than 1000 years");
    return count * unit.length;
  }
  refuse(name.empty() ? "it has no unit" : "its unit is unknown");
  return {};
}

std::string to_string_short(Microseconds duration) {
  const auto total = static_cast<double>(duration.count()) / 1e6;
  if (total < 1) return fmt::format("{:.0f} ms", total * 1e3);
  if (total < 60) return fmt::format("{:.1f} s", total);
  const auto whole = static_cast<long>(total);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} d {} h", whole / 86400, whole % 86400 / 3600);
}

}  // namespace holdfast::base
