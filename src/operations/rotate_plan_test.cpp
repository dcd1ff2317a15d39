#include <gtest/gtest.h>

#include "operations/secrets.h"

namespace holdfast::operations {
namespace {

/// The names of those to rotate of one secret of each class, in order.
std::string rotated(const Incident& incident) {
  std::vector<SecretFacts> secrets;
  for (const std::string& kind : secret_classes) {
    secrets.push_back({});
    secrets.back().name = secrets.back().kind = kind;
  }
  std::string names;
  for (const Rotation& each : plan_rotation(secrets, incident)) {
    EXPECT_FALSE(each.why.empty()) << each.facts.name;
    if (each.rotate) names += each.facts.name + " ";
  }
  return names;
}

TEST(RotatePlan, goes_by_what_happened) {
  EXPECT_EQ(rotated({}), "database tunnel webhook ");
  EXPECT_EQ(rotated({.host_lost = true}), "database tunnel webhook storage tls provider ");
  EXPECT_EQ(rotated({.compromised = true}),
            "database tunnel session webhook storage tls provider ");
}

TEST(RotatePlan, rotates_what_nobody_has_thought_about) {
  SecretFacts unknown;
  unknown.name = "X";
  const auto plan = plan_rotation({unknown}, {});
  EXPECT_TRUE(plan.front().rotate);
  EXPECT_NE(plan.front().why.find("[secrets.about.X]"), std::string::npos);
}

TEST(RotatePlan, follows_who_says_otherwise) {
  SecretFacts key;
  key.name = key.kind = "encryption";
  key.rotate = true;
  SecretFacts url;
  url.name = url.kind = "database";
  url.rotate = false;
  const auto plan = plan_rotation({url, key}, {});
  EXPECT_EQ(plan.front().facts.name, "encryption");
  EXPECT_TRUE(plan.front().rotate);
  EXPECT_FALSE(plan.back().rotate);
}

}  // namespace
}  // namespace holdfast::operations
