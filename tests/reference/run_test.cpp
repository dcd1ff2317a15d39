// reference/ops/run: the service without containers, by one script.

#include "harness/reference.h"

namespace reference::tests {
namespace {

class OpsRun : public ::testing::Test {
 protected:
  holdfast::base::Command command(const std::vector<std::string>& arguments) const {
    holdfast::base::Command command;
    command.argv = {"/bin/bash", REFERENCE_SOURCE "/ops/run"};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    command.environment = {{"LISTEN", "127.0.0.1:0"},
                           {"REFERENCE_BUILD", reference_binary().parent_path().parent_path()}};
    return command;
  }
  /// What follows this word in what the script printed.
  static std::string after(const std::string& text, const std::string& word) {
    const std::size_t at = text.find("\n" + word + " ");
    if (at == std::string::npos) return "";
    const std::size_t begin = text.find_first_not_of(' ', at + 1 + word.size());
    return text.substr(begin, text.find_first_of(" \n", begin) - begin);
  }

  Place place_;
};

TEST_F(OpsRun, serves_with_everything_that_it_needs_and_leaves_nothing_running) {
  const fs::path log = place_.path("run.log");
  Child script(command({place_.path("reference")}), log);
  eventually("it serves", [&] {
    if (script.finished()) throw std::runtime_error(text_of(log));
    return !after(text_of(log), "TOKEN").empty();
  });
  const std::string url = after(text_of(log), "service");
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  EXPECT_EQ(Client(port, "").get("/ready").status, 200);
  Client admin(port, after(text_of(log), "TOKEN"));
  EXPECT_EQ(admin.get("/organisations").data().at("data").size(), 1U);
  admin.make("buildings", {{"name", "Tower"}, {"address", "Street 1"}});
  script.signal(SIGTERM);
  EXPECT_EQ(script.wait(), 0);
  EXPECT_EQ(Client(port, "").get("/health").status, 0);
  EXPECT_FALSE(fs::exists(place_.path("reference/data/postmaster.pid")));
}

TEST_F(OpsRun, refuses_what_it_does_not_understand) {
  const holdfast::base::Outcome outcome =
      holdfast::base::run(command({place_.path("reference"), "--gamedays"}));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.errors.find("usage: run"), std::string::npos) << outcome.errors;
  EXPECT_FALSE(fs::exists(place_.path("reference")));
}

}  // namespace
}  // namespace reference::tests
