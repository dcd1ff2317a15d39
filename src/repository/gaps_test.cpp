#include "repository/gaps.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using testing::place;

class GapsTest : public ::testing::TestWithParam<bool> {
 protected:
  testing::TestRepository made_{GetParam()};
  Gaps gaps_{made_.repository, place};
  Gap gap_{10, 0x1'0300'0000, 0x1'0500'0000,
           base::Timestamp(base::Microseconds(1'700'000'000'123'456)),
           "the slot was lost \"by\"\nsomebody"};
};

INSTANTIATE_TEST_SUITE_P(Each, GapsTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(GapsTest, WR12_the_same_gap_is_one_record_and_two_gaps_are_two) {
  EXPECT_TRUE(gaps_.record(gap_));
  Gap again = gap_;
  again.found += base::Microseconds(5);
  EXPECT_FALSE(gaps_.record(again));
  Gap other = gap_;  // at the same instant
  other.to += 1;
  EXPECT_TRUE(gaps_.record(other));
  other.timeline = 16;
  EXPECT_TRUE(gaps_.record(other));
  const auto listed = gaps_.list();
  ASSERT_EQ(listed.gaps.size(), 3U);
  EXPECT_TRUE(listed.unreadable.empty());
  EXPECT_EQ(listed.gaps[0].timeline, 10U);
  EXPECT_EQ(listed.gaps[0].from, gap_.from);
  EXPECT_EQ(listed.gaps[0].to, gap_.to);
  EXPECT_EQ(listed.gaps[0].found, gap_.found);
  EXPECT_EQ(listed.gaps[0].why, gap_.why);
  EXPECT_EQ(listed.gaps[2].timeline, 16U);
}

TEST_P(GapsTest, a_break_is_a_gap_of_no_length_and_holds_though_its_record_is_damaged) {
  gaps_.record(gap_);
  EXPECT_TRUE(gaps_.breaks().empty());
  gaps_.record({18, gap_.to, gap_.to, gap_.found, "set back"});
  EXPECT_FALSE(gaps_.list().gaps.at(0).is_break());
  EXPECT_TRUE(gaps_.list().gaps.at(1).is_break());
  made_.objects->at(made_.objects->names_with("/gaps/00000012").at(0))[20] ^= 1;
  EXPECT_EQ(gaps_.list().unreadable.size(), 1U);
  ASSERT_EQ(gaps_.breaks().size(), 1U);
  EXPECT_EQ(gaps_.breaks()[0].timeline, 18U);
  EXPECT_EQ(gaps_.breaks()[0].at, gap_.to);
}

TEST_P(GapsTest, a_record_that_is_not_as_written_is_named) {
  gaps_.record(gap_);
  const std::string object = made_.objects->names_with("/gaps/").at(0);
  const base::Bytes good = made_.objects->at(object);
  for (std::size_t at = 0; at < good.size(); ++at) {
    made_.objects->at(object)[at] ^= 1;
    EXPECT_EQ(gaps_.list().unreadable, std::vector{object}) << at;
    EXPECT_TRUE(gaps_.list().gaps.empty()) << at;
    made_.objects->at(object) = good;
  }
  made_.objects->all[object + "0"] = good;
  EXPECT_EQ(gaps_.list().unreadable, std::vector{object + "0"});
}

}  // namespace
}  // namespace holdfast::repository
