#include "serve/watch.h"

#include <gtest/gtest.h>

#include "base/testing.h"
#include "repository/testing.h"

namespace holdfast::serve {
namespace {

using nlohmann::json;

std::vector<std::string> ids(const std::string& text) {
  std::vector<std::string> found;
  for (const Alarm& each : alarms_of(parse_documents(text))) {
    found.push_back(each.id + (each.bad ? " bad" : " warning"));
  }
  return found;
}
using Ids = std::vector<std::string>;

TEST(Watch, DS3_DS6_each_finding_that_is_not_good_is_an_alarm) {
  EXPECT_EQ(ids(R"({"ok": false, "findings": [
      {"level": "ok", "what": "a", "remedy": "", "about": "backup"},
      {"level": "warning", "what": "b", "remedy": "", "about": "slot:x"},
      {"level": "BAD", "what": "c", "remedy": "r", "about": "rpo"}]})"),
            (Ids{"slot:x warning", "rpo bad"}));
}

TEST(Watch, of_several_repositories_each_speaks_for_itself_and_the_cluster_once) {
  const std::string findings = R"("findings": [
      {"level": "BAD", "what": "c", "remedy": "r", "about": "gap"},
      {"level": "BAD", "what": "d", "remedy": "r", "about": "drill", "of": "cluster"}]})";
  EXPECT_EQ(ids(R"({"repository": "one", )" + findings + "\n" + R"({"repository": "two", )" +
                findings + R"({"repository": "three", "error": "io", "message": "m"})"),
            (Ids{"one/gap bad", "drill bad", "two/gap bad", "three/error bad"}));
}

TEST(Watch, of_several_holes_the_worst_is_the_alarm) {
  EXPECT_EQ(ids(R"({"ok": false, "findings": [
      {"level": "warning", "what": "an old hole", "remedy": "", "about": "gap"},
      {"level": "BAD", "what": "no way on", "remedy": "", "about": "gap"},
      {"level": "warning", "what": "a hole", "remedy": "", "about": "gap"}]})"),
            Ids{"gap bad"});
}

TEST(Watch, what_is_no_status_is_an_error_and_not_good_news) {
  for (const char* text : {"{", "{}", "[]", "nothing", R"({"findings": [{"level": 1}]})"}) {
    EXPECT_EQ(base::testing::code_of([&] { ids(text); }), base::Code::corrupt) << text;
  }
  EXPECT_EQ(base::testing::code_of([&] { ids(""); }), base::Code::corrupt);
}

TEST(Speaker, what_was_told_is_the_newest_record_whoever_wrote_it) {
  repository::testing::TestRepository shared(true);
  const auto& place = repository::testing::place;
  EXPECT_FALSE(read_told(shared.repository, place));
  write_told(shared.repository, place, 1, 1, "a");
  write_told(shared.repository, place, 1, 10, "b");
  EXPECT_EQ(read_told(shared.repository, place), "b");
  write_told(shared.repository, place, 2, 1, "c");
  EXPECT_EQ(read_told(shared.repository, place), "c");
  EXPECT_EQ(shared.objects->names_with("/alarms/").size(), 1U);
}

}  // namespace
}  // namespace holdfast::serve
