#include "serve/pages.h"

#include <gtest/gtest.h>

namespace holdfast::serve {
namespace {

using base::Timestamp;
using nlohmann::json;
using std::chrono::hours;
using std::chrono::minutes;

const Timestamp now{hours(500'000)};

json report() {
  return json::parse(R"({"ok": false, "repository": "lo\"c\\a\nl",
      "newest_good_backup": {"id": "x", "age_s": 60.5},
      "objectives": [
        {"name": "rpo", "unit": "s", "target": 3600.0, "measured": 4294967296.5, "held": false,
         "how": "<script>"},
        {"name": "uptime web", "unit": "share", "target": 0.995, "measured": null, "held": null,
         "how": "nobody has looked"}]})");
}

Picture picture() {
  Picture made;
  made.at = now;
  made.started = now - hours(1);
  made.look_every = minutes(1);
  made.jobs = {{"backup.main", true, {}, now + hours(2), 3, 1}};
  made.content.jobs["backup.main"] = {now, now, now, now, 7};
  made.content.alarms["status/main/rpo"] = {"status/main/rpo", true, "a & <b>", "", now, now};
  made.looks["main"] = StatusLook{now, {report()}};
  made.channels = {{"webhook", false}};
  return made;
}

service::HttpResponse get(const std::string& path, const Picture& of, bool alive = true) {
  return answer({"GET", path, {}, {}}, of, alive);
}

TEST(Pages, metrics_have_every_number_unchanged) {
  const std::string text = metrics(picture());
  for (const char* line :
       {"holdfast_job_runs_total{job=\"backup.main\",outcome=\"success\"} 3\n",
        "holdfast_job_last_exit_status{job=\"backup.main\"} 7\n",
        "holdfast_alarms{severity=\"bad\"} 1\n", "holdfast_channel_up{channel=\"webhook\"} 0\n",
        "objective=\"rpo\",unit=\"s\"} 4294967296.5\n", "repository=\"lo\\\"c\\\\a\\nl\"",
        "holdfast_start_timestamp_seconds 1799996400\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_EQ(text.find("objective=\"uptime web\",unit=\"share\"} 0\n"), std::string::npos)
      << "VE6: what was not measured is not zero";
  EXPECT_TRUE(text.ends_with("\n# EOF\n"));
}

TEST(Pages, DS9_the_page_shows_people_units_and_runs_nothing_of_what_it_shows) {
  const std::string text = page(picture());
  EXPECT_NE(text.find("<td>1 h 0 min</td>"), std::string::npos) << text;
  EXPECT_NE(text.find("<td>99.500 %</td><td>not measured</td>"), std::string::npos) << text;
  EXPECT_NE(text.find("a &amp; &lt;b&gt;"), std::string::npos);
  EXPECT_EQ(text.find("<script>"), std::string::npos);
}

TEST(Pages, ready_is_who_knows_how_things_are_and_healthy_is_who_lives) {
  Picture of = picture();
  EXPECT_EQ(get("/ready", of).status, 200) << "bad news are news";
  EXPECT_EQ(get("/health", of).status, 200);
  EXPECT_EQ(get("/health", of, false).status, 503);
  EXPECT_EQ(get("/ready", of, false).status, 503);
  of.at += hours(1);
  EXPECT_EQ(get("/ready", of).status, 503);
  of.looks["main"].reset();
  EXPECT_EQ(get("/ready", of).status, 503);
  EXPECT_EQ(get("/health", of).status, 200);
}

TEST(Pages, are_only_read) {
  EXPECT_EQ(answer({"POST", "/metrics", {}, {}}, picture(), true).status, 405);
  EXPECT_EQ(get("/elsewhere", picture()).status, 404);
  Picture odd = picture();
  odd.looks["main"]->reports[0]["objectives"] = json::array({7});
  EXPECT_EQ(get("/metrics", odd).status, 500);
  EXPECT_EQ(get("/", odd).status, 500);
}

}  // namespace
}  // namespace holdfast::serve
