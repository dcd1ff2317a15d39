// `holdfast smoke`: how it ends, what it writes, and what it does not show.

#include "faults/faults.h"
#include "service/http_listener.h"

namespace holdfast::tests {
namespace {

class SmokeTest : public testing::Test {
 protected:
  SmokeTest()
      : service_(service::find_address("127.0.0.1:0"), [](const service::HttpRequest& request) {
          const auto key = request.headers.find("authorization");
          const bool known = key != request.headers.end() && key->second == "Bearer s3cret";
          return service::HttpResponse{known ? 200 : 401, "{}"};
        }) {}
  Result smoke(const std::string& token, const std::vector<std::string>& options = {}) const {
    base::replace_file(place_.path("smoke.toml"),
                       base::view("url = \"http://" + service_.address().text() +
                                  "\"\nrate = 50\nduration = \"400ms\"\n"
                                  "[headers]\nAuthorization = \"Bearer ${TOKEN}\"\n"
                                  "[[request]]\nname = \"list\"\npath = \"/\"\n"
                                  "[thresholds]\np50 = \"5s\"\n"),
                       0644);
    place_.give_to_server_user(place_.path());
    std::vector<std::string> arguments{"smoke", place_.path("smoke.toml").string()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return place_.holdfast(arguments, {{"TOKEN", token}});
  }

  Place place_;
  service::HttpListener service_;
};

TEST_F(SmokeTest, ends_with_0_if_all_holds_and_exports_a_summary) {
  const auto file = place_.path("summary.json");
  const Result result = smoke("s3cret", {"--summary-export", file.string()});
  EXPECT_EQ(result.status, 0) << result.errors << result.output;
  const auto summary = nlohmann::json::parse(base::text(base::read_existing_file(file)));
  EXPECT_EQ(summary.at("metrics").at("iterations").at("count"), 20);
}

TEST_F(SmokeTest, ends_with_99_if_a_threshold_fails_and_shows_no_secret) {
  const Result result = smoke("wr0ng", {"--json"});
  EXPECT_EQ(result.status, 99) << result.errors;
  EXPECT_EQ(result.json().at("passed"), false);
  const Result text = smoke("wr0ng");
  EXPECT_NE(text.output.find("the first that failed: list: status is 200 to 399; it was 401"),
            std::string::npos)
      << text.output;
  EXPECT_EQ((result.output + result.errors + text.output + text.errors).find("wr0ng"),
            std::string::npos);
}

TEST_F(SmokeTest, ends_otherwise_if_it_could_not_run) {
  const Result result = smoke("");
  EXPECT_EQ(result.status, status_of(base::Code::configuration));
  EXPECT_NE(result.errors.find("TOKEN"), std::string::npos) << result.errors;
  EXPECT_EQ(place_.holdfast({"smoke", "/nowhere.toml"}).status, status_of(base::Code::io));
}

TEST_F(SmokeTest, lets_k6_run_its_own_scripts_and_ends_as_it_does) {
  const fs::path script = place_.path("load.js");
  base::replace_file(script, base::view("export default function () {}\n"), 0644);
  const std::string empty_path = place_.path("empty").string();
  const Result without = place_.holdfast({"smoke", script.string()}, {{"PATH", empty_path}});
  EXPECT_EQ(without.status, status_of(base::Code::not_found));
  EXPECT_NE(without.errors.find("k6 is not installed"), std::string::npos) << without.errors;
  fs::create_directory(place_.path("bin"));
  base::replace_file(place_.path("bin") / "k6", base::view("#!/bin/sh\necho \"$@\"\nexit 99\n"),
                     0755);
  place_.give_to_server_user(place_.path());
  const std::string path = place_.path("bin").string() + ":/usr/bin:/bin";
  const Result with =
      place_.holdfast({"smoke", script.string(), "--summary-export", "out.json"}, {{"PATH", path}});
  EXPECT_EQ(with.status, 99) << with.errors;
  EXPECT_EQ(with.output, "run --summary-export=out.json " + script.string() + "\n");
  EXPECT_EQ(
      place_.holdfast({"smoke", script.string()}, {{"PATH", path}, {"K6_NO_THRESHOLDS", "true"}})
          .status,
      status_of(base::Code::refused));
}

}  // namespace
}  // namespace holdfast::tests
