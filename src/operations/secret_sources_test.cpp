#include "operations/secret_sources.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "operations/secret_targets.h"

namespace holdfast::operations {
namespace {

using std::chrono::seconds;

TEST(SecretCommand, gives_what_it_prints) {
  EXPECT_EQ(output_of_secret_command("a", "echo value; echo unseen >&2", seconds(20)), "value");
}

TEST(SecretCommand, that_hangs_is_ended_with_all_that_it_started) {
  const auto begun = std::chrono::steady_clock::now();
  try {
    output_of_secret_command("a", "(trap '' TERM; sleep 60) & sleep 60", seconds(1));
    ADD_FAILURE() << "it ended well";
  } catch (const base::Error& error) {
    EXPECT_NE(error.message().find("did not end within 1 s"), std::string::npos) << error.message();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(20));
}

SecretFacts facts(const std::string& name, const std::string& source) {
  SecretFacts facts;
  facts.name = name;
  facts.source = source;
  return facts;
}

TEST(SecretTarget, an_environment_file_gets_what_commands_print_and_names_what_it_does_not_get) {
  SecretTargetRequest request;
  request.kind = "envfile";
  EXPECT_TRUE(belongs_there(facts("API_TOKEN", "command"), request));
  EXPECT_FALSE(belongs_there(facts("api-token", "command"), request));
  EXPECT_FALSE(belongs_there(facts("TLS_KEY", "file"), request));
  SecretFacts elsewhere = facts("ELSEWHERE", "command");
  elsewhere.targets = {"vault"};
  const auto named =
      left_out(request, {facts("API_TOKEN", "command"), facts("api-token", "command"),
                         facts("TLS_KEY", "file"), elsewhere});
  ASSERT_EQ(named.size(), 2U);
  EXPECT_EQ(named[0].name, "api-token");
  EXPECT_EQ(named[1].name, "TLS_KEY");
}

}  // namespace
}  // namespace holdfast::operations
