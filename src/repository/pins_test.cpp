#include "repository/pins.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Code;
using testing::code_of;
using testing::place;

const BackupId backup{"20261123T083000Z-4f2a"};
const BackupId other{"20261124T083000Z-0001"};
const base::Timestamp day = base::from_iso("2026-11-23T08:30:00.000000Z");
constexpr auto hour = std::chrono::hours(1);

class PinsTest : public ::testing::TestWithParam<bool> {
 protected:
  std::string name_of(const Pin& pin) const {
    return place.directory() + "/pins/" + pin.backup.text + "/" + pin.id;
  }
  testing::TestRepository made_{GetParam()};
  Pins pins_{made_.repository, place};
};

INSTANTIATE_TEST_SUITE_P(Each, PinsTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(PinsTest, give_back_date_and_reason) {
  EXPECT_TRUE(pins_.all().empty());
  pins_.add(backup, day, day + hour, "before the \"migration\"\n");
  const auto found = pins_.of(backup);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].readable);
  EXPECT_EQ(found[0].made, day);
  EXPECT_EQ(found[0].until, day + hour);
  EXPECT_EQ(found[0].reason, "before the \"migration\"\n");
  EXPECT_TRUE(pins_.of(other).empty());
}

TEST_P(PinsTest, hold_to_their_very_end_and_not_longer) {
  const Pin pin = pins_.add(backup, day, day + hour, "x");
  EXPECT_TRUE(pin.holds_at(day + hour));
  EXPECT_FALSE(pin.holds_at(day + hour + base::Microseconds(1)));
}

TEST_P(PinsTest, are_released_one_by_one) {
  const Pin first = pins_.add(backup, day, day + hour, "first");
  pins_.add(backup, day, day + hour, "second");
  pins_.add(other, day, day + hour, "other");
  EXPECT_EQ(pins_.all().size(), 3U);
  pins_.release(first, day);
  pins_.release(first, day + hour);  // twice is no error
  ASSERT_EQ(pins_.of(backup).size(), 1U);
  EXPECT_EQ(pins_.of(backup)[0].reason, "second");
  EXPECT_EQ(pins_.all().size(), 2U);
}

TEST_P(PinsTest, GC5_that_cannot_be_read_hold_until_they_are_released) {
  const Pin pin = pins_.add(backup, day, day + hour, "x");
  const base::Bytes whole = made_.objects->at(name_of(pin));
  for (std::size_t at = 0; at < whole.size(); at += 7) {
    made_.objects->at(name_of(pin)) = whole;
    made_.objects->at(name_of(pin))[at] ^= 1;
    const auto found = pins_.of(backup);
    ASSERT_EQ(found.size(), 1U) << at;
    EXPECT_FALSE(found[0].readable) << at;
    EXPECT_TRUE(found[0].holds_at(day + 100000 * hour));
  }
  made_.objects->at(name_of(pin)).clear();
  ASSERT_EQ(pins_.of(backup).size(), 1U);
  pins_.release(pins_.of(backup)[0], day);
  EXPECT_TRUE(pins_.of(backup).empty());
}

TEST_P(PinsTest, are_not_released_by_what_is_no_release_of_theirs) {
  const Pin first = pins_.add(backup, day, day + hour, "first");
  const Pin second = pins_.add(backup, day, day + hour, "second");
  pins_.release(first, day);
  const base::Bytes release = made_.objects->at(name_of(first) + "-released");
  made_.objects->all[name_of(second) + "-released"] = release;
  ASSERT_EQ(pins_.of(backup).size(), 1U);
  EXPECT_EQ(pins_.of(backup)[0].id, second.id);
  EXPECT_EQ(code_of([&] { pins_.release(second, day); }), Code::corrupt);
  // Nor is a pin of another backup, system or cluster one of this.
  made_.objects->all[place.directory() + "/pins/" + other.text + "/" + first.id] =
      made_.objects->at(name_of(first));
  EXPECT_FALSE(pins_.of(other).at(0).readable);
}

TEST_P(PinsTest, are_not_taken_for_absent_when_the_store_fails) {
  pins_.add(backup, day, day + hour, "x");
  for (const char* call : {"names", "open"}) {
    made_.objects->before = [&](std::string_view now, const std::string&) {
      if (now == call) base::fail(Code::io, "could not");
    };
    EXPECT_EQ(code_of([&] { pins_.all(); }), Code::io) << call;
  }
}

}  // namespace
}  // namespace holdfast::repository
