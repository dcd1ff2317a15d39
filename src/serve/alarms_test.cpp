#include "serve/alarms.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "service/http_listener.h"
#include "service/testing.h"

namespace holdfast::serve {
namespace {

using base::Timestamp;
using nlohmann::json;
using service::testing::soon;
using std::chrono::hours;
using std::chrono::minutes;

/// What one daemon finds and tells, by a clock of the test's own.
struct Teller {
  State::Content content{};
  std::vector<std::string> channels{"webhook"};
  Timestamp now{hours(500'000)};

  /// "EVENT ID" of each message.
  std::vector<std::string> finds(const std::vector<std::string>& bad, bool silent = false,
                                 const std::vector<std::string>& warnings = {}) {
    std::vector<Alarm> current;
    for (const auto& id : bad) current.push_back({id, true, id + " is bad", "mend it", {}, {}});
    for (const auto& id : warnings) current.push_back({id, false, id + " is near", "", {}, {}});
    settle_alarms(content, "status/main", current, now, channels, "host", silent);
    now += minutes(1);
    std::vector<std::string> told;
    for (const Message& each : std::exchange(content.outbox, {})) {
      const json document = json::parse(each.document);
      told.push_back(document.at("event").get<std::string>() + " " +
                     document.at("alarm").get<std::string>());
    }
    return told;
  }
};
using Told = std::vector<std::string>;

TEST(Alarms, are_told_once_when_they_begin_and_once_when_they_end) {
  Teller teller;
  EXPECT_EQ(teller.finds({"rpo"}), Told{"begins status/main/rpo"});
  EXPECT_EQ(teller.finds({"rpo"}), Told{});
  EXPECT_EQ(teller.finds({"rpo", "gap"}), Told{"begins status/main/gap"});
  EXPECT_EQ(teller.finds({"gap"}), Told{"ends status/main/rpo"});
  EXPECT_EQ(teller.finds({"gap", "rpo"}), Told{"begins status/main/rpo"}) << "it came again";
  EXPECT_EQ(teller.finds({}), (Told{"ends status/main/gap", "ends status/main/rpo"}));
}

TEST(Alarms, are_told_to_each_channel_and_reminded_of_after_a_day) {
  Teller teller;
  teller.channels = {"webhook", "email"};
  EXPECT_EQ(teller.finds({"rpo"}).size(), 2U);
  teller.now += hours(23);
  EXPECT_EQ(teller.finds({"rpo"}), Told{});
  teller.now += hours(1);
  EXPECT_EQ(teller.finds({"rpo"}), (Told{"lasts status/main/rpo", "lasts status/main/rpo"}));
  EXPECT_EQ(teller.finds({"rpo"}), Told{});
  teller.now -= hours(24 * 400);
  EXPECT_EQ(teller.finds({"rpo"}).size(), 2U) << "a clock that was put back does not silence it";
  EXPECT_EQ(teller.finds({"rpo"}), Told{});
}

TEST(Alarms, DS3_a_warning_that_becomes_bad_is_told_again_and_never_the_other_way_round) {
  Teller teller;
  EXPECT_EQ(teller.finds({}, false, {"slot"}), Told{"begins status/main/slot"});
  EXPECT_EQ(teller.finds({"slot"}), Told{"worsens status/main/slot"});
  EXPECT_EQ(teller.finds({}, false, {"slot"}), Told{});
  EXPECT_FALSE(teller.content.alarms.at("status/main/slot").bad);
}

TEST(Alarms, of_another_scope_are_left_alone) {
  Teller teller;
  teller.finds({"rpo"});
  settle_alarms(teller.content, "status/mai", {}, teller.now, {}, "host");
  settle_alarms(teller.content, "job/backup.main", {}, teller.now, {}, "host");
  EXPECT_EQ(teller.content.alarms.size(), 1U);
}

TEST(Alarms, one_of_two_daemons_tells_and_the_next_goes_on_from_there) {
  Teller first;
  Teller second;
  EXPECT_EQ(first.finds({"rpo", "gap"}).size(), 2U);
  EXPECT_EQ(second.finds({"rpo", "gap"}, true), Told{}) << "it listens";
  EXPECT_EQ(first.finds({"rpo"}), Told{"ends status/main/gap"});
  const auto left = alarms_from(alarms_text(told_alarms(first.content, "status/main")));
  EXPECT_EQ(second.finds({"rpo"}, true), Told{});
  // Now the first one dies; meanwhile rpo is over, and a slot is lost.
  EXPECT_EQ(second.finds({"slot"}, true), Told{});
  adopt_alarms(second.content, "status/main", left);
  EXPECT_EQ(second.finds({"slot"}), (Told{"begins status/main/slot", "ends status/main/rpo"}));
}

TEST(Alarms, what_lasts_is_not_told_again_by_who_takes_over) {
  Teller first;
  Teller second;
  first.finds({"rpo"});
  second.finds({"rpo"}, true);
  adopt_alarms(second.content, "status/main", told_alarms(first.content, "status/main"));
  EXPECT_EQ(second.finds({"rpo"}), Told{});
  EXPECT_EQ(second.finds({}), Told{"ends status/main/rpo"});
}

TEST(Alarms, what_nobody_was_told_of_is_told_by_who_takes_over_and_its_end_is_not) {
  Teller teller;
  teller.finds({"rpo", "gap"}, true);
  EXPECT_EQ(told_alarms(teller.content, "status/main").size(), 0U);
  EXPECT_EQ(teller.finds({"rpo"}), Told{"begins status/main/rpo"});
}

/// A state file and channels that are real.
class Delivery : public testing::Test {
 protected:
  std::vector<json> heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  static std::vector<Alarm> alarm(const std::string& what = "it is bad") {
    return {{"x", true, what, "mend it", {}, {}}};
  }

  base::TemporaryDirectory directory_{"alarms"};
  State state_{directory_.path() / "state.json"};
  std::mutex mutex_;
  std::vector<json> heard_;
  std::atomic<int> status_{200};
  service::HttpListener hook_{service::find_address("127.0.0.1:0"),
                              [this](const service::HttpRequest& request) {
                                const std::lock_guard lock(mutex_);
                                if (status_ == 200) heard_.push_back(json::parse(request.body));
                                return service::HttpResponse{status_, "{}"};
                              }};
  operations::AlertSettings settings_{"http://" + hook_.address().text() + "/s3cret-path", "", {}};
};

TEST_F(Delivery, goes_to_webhook_command_and_mail) {
  const std::string said = (directory_.path() / "said").string();
  settings_.command = "cat >" + said + "; echo \"$HOLDFAST_ALERT\" >" + said + ".line";
  Alarms alarms(state_);
  alarms.configure(settings_);
  alarms.settle("status/main", alarm("two\nlines"));
  ASSERT_TRUE(soon([&] { return state_.content().outbox.empty(); }));
  ASSERT_EQ(heard().size(), 1U);
  EXPECT_EQ(heard()[0].at("alarm"), "status/main/x");
  EXPECT_EQ(heard()[0].at("event"), "begins");
  EXPECT_EQ(json::parse(base::text(base::read_existing_file(said))).at("what"), "two\nlines");
  const base::Bytes line = base::read_existing_file(said + ".line");
  EXPECT_NE(base::text(line).find("status/main/x begins: two"), std::string::npos);
}

TEST_F(Delivery, a_channel_that_fails_or_hangs_delays_no_other_and_its_url_is_not_said) {
  status_ = 500;
  settings_.command = "echo >>" + (directory_.path() / "said").string();
  Alarms alarms(state_);
  alarms.configure(settings_);
  alarms.settle("status/main", alarm());
  ASSERT_TRUE(soon([&] { return alarms.failing().contains("webhook"); }));
  ASSERT_TRUE(soon([&] { return state_.content().outbox.size() == 1; }));
  EXPECT_EQ(alarms.failing().at("webhook"), "the webhook answered 500");
  status_ = 200;
  alarms.settle("status/main", {});  // what is new wakes it
  ASSERT_TRUE(soon([&] { return state_.content().outbox.empty(); }));
  ASSERT_EQ(heard().size(), 2U);
  EXPECT_EQ(heard()[0].at("event"), "begins") << "in order";
  EXPECT_EQ(heard()[1].at("event"), "ends");
  EXPECT_TRUE(alarms.failing().empty());
}

TEST_F(Delivery, what_was_not_delivered_is_delivered_after_a_restart) {
  {
    Alarms alarms(state_);
    status_ = 503;
    alarms.configure(settings_);
    alarms.settle("status/main", alarm());
    ASSERT_TRUE(soon([&] { return alarms.failing().contains("webhook"); }));
  }
  status_ = 200;
  Alarms alarms(state_);
  alarms.configure(settings_);
  ASSERT_TRUE(soon([&] { return heard().size() == 1; }));
  alarms.configure({});
  alarms.settle("status/main", {});
  EXPECT_TRUE(state_.content().outbox.empty()) << "nobody is to be told any more";
}

TEST_F(Delivery, a_channel_that_fails_does_so_until_it_takes_a_message_or_is_gone) {
  status_ = 500;
  Alarms alarms(state_);
  alarms.configure(settings_);
  alarms.settle("status/main", alarm());
  ASSERT_TRUE(soon([&] { return alarms.failing().contains("webhook"); }));
  alarms.configure(settings_);  // SIGHUP
  EXPECT_TRUE(alarms.failing().contains("webhook")) << "nothing has become better";
  status_ = 200;
  alarms.configure(settings_);
  ASSERT_TRUE(soon([&] { return alarms.failing().empty(); }));
  status_ = 500;
  alarms.settle("status/main", {});
  ASSERT_TRUE(soon([&] { return alarms.failing().contains("webhook"); }));
  alarms.configure({});
  EXPECT_TRUE(alarms.failing().empty());
}

TEST_F(Delivery, mail_has_headers_that_no_alarm_can_forge) {
  const base::fs::path program = directory_.path() / "sendmail";
  const base::fs::path mail = directory_.path() / "mail";
  base::replace_file(program,
                     base::view("#!/bin/sh\necho \"$@\" >" + mail.string() + ".argv\ncat >" +
                                mail.string() + "\n"),
                     0755);
  settings_ = {"", "", {"a@example.net", "b@example.net"}};
  settings_.sendmail = program;
  deliver(settings_, {1, "email", "bad\nBcc: everybody@example.net",
                      R"({"what":"it is bad","remedy":"mend it","since":"now"})"});
  const std::string text(base::text(base::read_existing_file(mail)));
  EXPECT_EQ(text,
            "To: a@example.net, b@example.net\nSubject: bad Bcc: everybody@example.net\n"
            "Content-Type: text/plain; charset=utf-8\n\nit is bad\n\nmend it\n\nSince: now\n");
  EXPECT_EQ(base::text(base::read_existing_file(mail.string() + ".argv")),
            "-i -- a@example.net b@example.net\n");
}

}  // namespace
}  // namespace holdfast::serve
