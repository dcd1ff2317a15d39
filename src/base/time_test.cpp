#include "base/time.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

constexpr const char* berlin = "Europe/Berlin";

std::string in_utc(std::string_view text, std::string_view zone = "UTC") {
  return to_iso(parse_time(text, zone).time);
}

/// Why the text was refused; empty if it was not.
std::string refusal(std::string_view text, std::string_view zone = "UTC") {
  try {
    parse_time(text, zone);
    return {};
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::usage) << text;
    EXPECT_FALSE(error.hint().empty()) << text;
    return error.message();
  }
}

TEST(ParseTime, reads_what_people_write) {
  EXPECT_EQ(in_utc("2026-11-23 08:30"), "2026-11-23T08:30:00.000000Z");
  EXPECT_EQ(in_utc("2026-11-23T08:30:01Z"), "2026-11-23T08:30:01.000000Z");
  EXPECT_EQ(in_utc("2026-11-23 08:30:01 UTC"), "2026-11-23T08:30:01.000000Z");
  EXPECT_EQ(in_utc("2026-11-23 08:30:01.5z"), "2026-11-23T08:30:01.500000Z");
  EXPECT_EQ(in_utc("2026-11-23 00:00:00 Asia/Kolkata"), "2026-11-22T18:30:00.000000Z");
  EXPECT_EQ(in_utc("1969-12-31 23:59:59.999999"), "1969-12-31T23:59:59.999999Z");
}

TEST(ParseTime, says_whether_it_had_to_assume_the_zone) {
  EXPECT_TRUE(parse_time("2026-11-23 08:30", berlin).zone_was_assumed);
  EXPECT_EQ(in_utc("2026-11-23 08:30", berlin), "2026-11-23T07:30:00.000000Z");
  EXPECT_EQ(in_utc("2026-07-01 08:30", berlin), "2026-07-01T06:30:00.000000Z");
  for (const char* text : {"2026-11-23 08:30Z", "2026-11-23 08:30+00", "2026-11-23 08:30 UTC"}) {
    EXPECT_FALSE(parse_time(text, berlin).zone_was_assumed);
    EXPECT_EQ(in_utc(text, berlin), "2026-11-23T08:30:00.000000Z");
  }
}

TEST(ParseTime, takes_offsets_to_the_minute_both_ways) {
  for (const char* text :
       {"2026-11-23 08:30+01", "2026-11-23 08:30 +01:00", "2026-11-23T08:30+0100",
        "2026-11-23 02:00-0530", "2026-11-22 16:30 -15:00"}) {
    EXPECT_EQ(in_utc(text), "2026-11-23T07:30:00.000000Z") << text;
  }
}

TEST(ParseTime, keeps_fractions_to_the_microsecond_and_refuses_finer_ones) {
  EXPECT_EQ(in_utc("2026-11-23 08:30:00.000001"), "2026-11-23T08:30:00.000001Z");
  EXPECT_EQ(in_utc("2026-11-23 08:30:00.12"), "2026-11-23T08:30:00.120000Z");
  EXPECT_EQ(in_utc("2026-11-23 08:30:00.123456000"), "2026-11-23T08:30:00.123456Z");
  EXPECT_NE(refusal("2026-11-23 08:30:00.1234567"), "");
}

TEST(ParseTime, knows_leap_years) {
  EXPECT_EQ(in_utc("2028-02-29 12:00"), "2028-02-29T12:00:00.000000Z");
  EXPECT_EQ(in_utc("2000-02-29 12:00"), "2000-02-29T12:00:00.000000Z");
  for (const char* text : {"2026-02-29 12:00", "2100-02-29 12:00", "1900-02-29 12:00"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
}

TEST(ParseTime, refuses_an_hour_that_was_skipped_WF14) {
  for (const char* time : {"2026-03-29 02:00", "2026-03-29 02:30", "2026-03-29 02:59:59.999999"}) {
    EXPECT_NE(refusal(time, berlin).find("never was"), std::string::npos) << time;
    EXPECT_NE(refusal(std::string(time) + " Europe/Berlin").find("never was"), std::string::npos);
  }
  EXPECT_EQ(in_utc("2026-03-29 01:59:59.999999", berlin), "2026-03-29T00:59:59.999999Z");
  EXPECT_EQ(in_utc("2026-03-29 03:00", berlin), "2026-03-29T01:00:00.000000Z");
}

TEST(ParseTime, refuses_an_hour_that_was_twice_WF14) {
  for (const char* time : {"2026-10-25 02:00", "2026-10-25 02:30", "2026-10-25 02:59:59.999999"}) {
    EXPECT_NE(refusal(time, berlin).find("twice"), std::string::npos) << time;
    EXPECT_NE(refusal(std::string(time) + " Europe/Berlin").find("twice"), std::string::npos);
  }
  EXPECT_EQ(in_utc("2026-10-25 02:30+02"), "2026-10-25T00:30:00.000000Z");
  EXPECT_EQ(in_utc("2026-10-25 02:30+01"), "2026-10-25T01:30:00.000000Z");
  EXPECT_EQ(in_utc("2026-10-25 01:59:59", berlin), "2026-10-24T23:59:59.000000Z");
  EXPECT_EQ(in_utc("2026-10-25 03:00", berlin), "2026-10-25T02:00:00.000000Z");
}

TEST(ParseTime, refuses_what_it_does_not_understand_exactly_WF14) {
  const std::string day = "2026-11-23 ";
  for (const char* text : {"",
                           " ",
                           "now",
                           "tomorrow",
                           "13am",
                           "1763886600",
                           "20261123T083000Z",
                           "2026-11-23",
                           "2026-11-23T",
                           "2026-11-23 ",
                           "2026/11/23 08:30",
                           "23.11.2026 08:30",
                           " 2026-11-23 08:30",
                           "2026-1-23 08:30",
                           "26-11-23 08:30",
                           "-2026-11-23 08:30",
                           "2026-13-01 08:30",
                           "2026-00-01 08:30",
                           "2026-11-00 08:30",
                           "2026-11-31 08:30",
                           "2026-11-23_08:30",
                           "2026-11-23t08:30"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
  for (const char* text : {"13am",
                           "0am",
                           "1pm",
                           "8",
                           "8:30",
                           "08",
                           "08:",
                           "08:3",
                           "08:30:",
                           "08:30:1",
                           "08:30am",
                           "08:30 am",
                           "01:00 PM",
                           "13:00pm",
                           "24:00",
                           "24:00:00",
                           "23:60",
                           "23:59:60",
                           "-1:30",
                           "08:30:00.",
                           "08:30:00,5",
                           "08:30:00.5.5",
                           "08:30:00.x",
                           "08.30",
                           "08:30:00:00",
                           "08:30\n",
                           "08:30 Europe/Berlin "}) {
    EXPECT_NE(refusal(day + text), "") << text;
  }
  for (const char* zone : {"+",
                           "-",
                           "+1",
                           "+1:00",
                           "+01:",
                           "+01:6",
                           "+01:60",
                           "+16",
                           "+99",
                           "+010",
                           "++01",
                           "+01 UTC",
                           "+01:00:00",
                           "UTC+1",
                           "Europe/Nowhere",
                           "europe/berlin",
                           "BST",
                           "ZZ",
                           "../UTC",
                           "/usr/share/zoneinfo/UTC",
                           "right/UTC",
                           "Factory",
                           "UTC UTC",
                           "zone.tab",
                           "Europe",
                           "Europe/",
                           "+\xd9\xa1\xd9\xa2"}) {
    EXPECT_NE(refusal(day + "08:30 " + zone), "") << zone;
  }
  EXPECT_NE(refusal("2026-11-23 08:30", "Mars/Olympus"), "");
  EXPECT_NE(refusal(std::string("2026-11-23 08:30\0", 17)), "");
}

TEST(Time, is_printed_in_utc_and_without_fractions_that_it_has_not) {
  const Timestamp time = parse_time("2026-11-23 08:30:00.120000", "UTC").time;
  EXPECT_EQ(to_string(time), "2026-11-23 08:30:00.12 UTC");
  EXPECT_EQ(to_string(time - Microseconds(120000)), "2026-11-23 08:30:00 UTC");
  EXPECT_EQ(to_string(Timestamp(Microseconds(-1))), "1969-12-31 23:59:59.999999 UTC");
}

TEST(Time, reads_back_what_it_printed) {
  testing::Random random(1);
  for (int i = 0; i < 500; ++i) {
    // Years 1000 to 3000.
    const Timestamp time(Microseconds(
        static_cast<std::int64_t>(random.below(63'000'000'000'000'000)) - 30'000'000'000'000'000));
    EXPECT_EQ(from_iso(to_iso(time)), time);
    EXPECT_EQ(parse_time(to_string(time), berlin).time, time);
  }
}

TEST(Time, sorts_as_text_as_it_does_as_time) {
  const Timestamp whole = from_iso("2026-11-23T08:30:00.000000Z");
  EXPECT_LT(to_iso(whole), to_iso(whole + Microseconds(1)));
  EXPECT_LT(to_iso(whole - Microseconds(1)), to_iso(whole));
}

TEST(FromIso, takes_only_what_to_iso_writes) {
  for (const char* text :
       {"", "2026-11-23T08:30:00Z", "2026-11-23T08:30:00.0Z", "2026-11-23 08:30:00.000000Z",
        "2026-11-23T08:30:00.000000", "2026-11-23T08:30:00.000000+00",
        "2026-11-23T08:30:00.000000 UTC", "2026-11-23T24:30:00.000000Z",
        "2026-11-23T08:30:00.000000Z ", "2026-11-23T08:30:00.000000z"}) {
    try {
      from_iso(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::corrupt);
    }
  }
}

TEST(ParseTime, understands_or_refuses_any_text) {
  testing::Random random(2);
  const std::array<std::string_view, 4> seeds{"2026-11-23 08:30:00.123456 Europe/Berlin",
                                              "2026-11-23T08:30:00+01:00", "2026-10-25 02:30-0330",
                                              "2028-02-29T23:59Z"};
  for (std::size_t round = 0; round < testing::fuzz_iterations(3000); ++round) {
    const Bytes bytes = testing::mutated(view(seeds[random.below(seeds.size())]), random);
    try {
      const Timestamp time = parse_time(text(bytes), "UTC").time;
      EXPECT_EQ(parse_time(to_string(time), "UTC").time, time) << text(bytes);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::usage) << text(bytes);
    }
  }
}

TEST(Duration, is_read_exactly_or_refused) {
  using namespace std::chrono_literals;
  EXPECT_EQ(parse_duration("200ms"), 200ms);
  EXPECT_EQ(parse_duration("0s"), 0s);
  EXPECT_EQ(parse_duration("1s"), 1s);
  EXPECT_EQ(parse_duration("5min"), 5min);
  EXPECT_EQ(parse_duration("4h"), 4h);
  EXPECT_EQ(parse_duration("7d"), 168h);
  EXPECT_EQ(parse_duration("2w"), 336h);
  for (const char* text : {"", "1", "s", "1 s", " 1s", "1s ", "-1s", "+1s", "1.5s", "1m", "1S",
                           "1ss", "0x1s", "99999999999999999999s", "9223372036854775807h"}) {
    try {
      parse_duration(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::usage) << text;
      EXPECT_FALSE(error.hint().empty());
    }
  }
}

TEST(Duration, is_short_for_people) {
  using namespace std::chrono_literals;
  EXPECT_EQ(to_string_short(0us), "0 ms");
  EXPECT_EQ(to_string_short(250ms), "250 ms");
  EXPECT_EQ(to_string_short(1200ms), "1.2 s");
  EXPECT_EQ(to_string_short(200s), "3 min 20 s");
  EXPECT_EQ(to_string_short(245min), "4 h 5 min");
  EXPECT_EQ(to_string_short(49h), "2 d 1 h");
}

TEST(ParseDuration, reads_a_number_and_a_unit) {
  EXPECT_EQ(parse_duration("90s"), std::chrono::seconds(90));
  EXPECT_EQ(parse_duration("5min"), std::chrono::minutes(5));
  EXPECT_EQ(parse_duration("4h"), std::chrono::hours(4));
  EXPECT_EQ(parse_duration("7d"), std::chrono::hours(7 * 24));
  EXPECT_EQ(parse_duration("2w"), std::chrono::hours(14 * 24));
  EXPECT_EQ(parse_duration("0s"), Microseconds(0));
  EXPECT_EQ(parse_duration("007d"), std::chrono::hours(7 * 24));
  EXPECT_EQ(parse_duration("365000d"), std::chrono::hours(365000 * 24));
}

TEST(ParseDuration, CC7_refuses_what_is_no_number_has_no_unit_or_is_too_long) {
  for (const char* text : {"",
                           " ",
                           "d",
                           "7",
                           "-7d",
                           "+7d",
                           "--7d",
                           "7 d",
                           " 7d",
                           "7d ",
                           "7.5d",
                           "1e3d",
                           "nan",
                           "inf",
                           "nand",
                           "infd",
                           "0x7d",
                           "7D",
                           "7m",
                           "7mo",
                           "7y",
                           "7days",
                           "1d12h",
                           "7d7",
                           "1,000d",
                           "365001d",
                           "52143w",
                           "9223372036854775807s",
                           "9223372036854775808s",
                           "-1s",
                           "99999999999999999999999999d",
                           "31536000001s",
                           "\0d"}) {
    try {
      parse_duration(text);
      ADD_FAILURE() << "\"" << text << "\" was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::usage) << text;
      EXPECT_FALSE(error.hint().empty()) << text;
    }
  }
  EXPECT_THROW(parse_duration(std::string_view("7d\0", 3)), Error);
  EXPECT_THROW(parse_duration(std::string_view()), Error);
}

}  // namespace
}  // namespace holdfast::base
