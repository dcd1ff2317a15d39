#include "serve/state.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::serve {
namespace {

using base::Timestamp;
using std::chrono::hours;

class StateTest : public testing::Test {
 protected:
  const Timestamp now_{hours(500'000)};
  base::TemporaryDirectory directory_{"state"};
  base::fs::path file_ = directory_.path() / "deep" / "serve.json";
};

TEST_F(StateTest, outlives_the_daemon) {
  {
    State state(file_);
    state.change([&](State::Content& content) {
      content.jobs["backup.main"] = {now_, now_ + hours(1), now_ + hours(2), now_ + hours(2), 0};
      content.jobs["drill.main"] = {now_, {}, {}, {}, {}};
      content.alarms["a/b"] = {"a/b", false, "what \xff", "remedy", now_, now_ + hours(3)};
      content.outbox.push_back({7, "webhook", "subject", "{}"});
      content.next_message = 8;
    });
    EXPECT_EQ(state.trouble(), "");
  }
  State state(file_);
  const State::Content content = state.content();
  EXPECT_EQ(content.jobs.at("backup.main").slot, now_ + hours(1));
  EXPECT_EQ(content.jobs.at("backup.main").succeeded, now_ + hours(2));
  EXPECT_EQ(content.jobs.at("backup.main").status, 0);
  EXPECT_EQ(content.jobs.at("drill.main").last(), now_);
  EXPECT_FALSE(content.jobs.at("drill.main").status);
  EXPECT_EQ(content.alarms.at("a/b").told, now_ + hours(3));
  EXPECT_FALSE(content.alarms.at("a/b").bad);
  EXPECT_EQ(content.outbox.at(0).channel, "webhook");
  EXPECT_EQ(content.next_message, 8U);
}

TEST_F(StateTest, belongs_to_one_daemon_at_a_time) {
  const State state(file_);
  EXPECT_EQ(base::testing::code_of([&] { State other(file_); }), base::Code::busy);
}

TEST_F(StateTest, that_cannot_be_understood_is_put_aside_and_said) {
  base::make_directories(file_.parent_path());
  for (const char* text : {"", "{", "[]", "{\"version\":2}", "{\"version\":1,\"jobs\":7}"}) {
    base::replace_file(file_, base::view(text), 0600);
    State state(file_);
    EXPECT_NE(state.trouble().find("could not be understood"), std::string::npos) << text;
    EXPECT_TRUE(state.content().jobs.empty());
    EXPECT_EQ(base::text(base::read_existing_file(file_.string() + ".damaged")), text);
  }
}

TEST_F(StateTest, that_cannot_be_written_goes_on_in_memory_and_says_so_until_it_can) {
  State state(file_);
  const auto note = [&](int status) {
    state.change([&](State::Content& content) { content.jobs["x"].status = status; });
  };
  note(1);
  base::fs::remove_all(file_.parent_path());
  note(2);
  EXPECT_EQ(state.job("x").status, 2);
  EXPECT_NE(state.trouble().find("could not be noted"), std::string::npos);
  base::make_directories(file_.parent_path());
  note(3);
  EXPECT_EQ(state.trouble(), "");
}

}  // namespace
}  // namespace holdfast::serve
