#include "operations/observation.h"

#include <gtest/gtest.h>

namespace holdfast::operations {
namespace {

using std::chrono::milliseconds;

base::HttpAnswer answer(long status, const std::string& body = "", milliseconds took = {}) {
  base::HttpAnswer given;
  given.status = status;
  given.body = body;
  given.took = took;
  return given;
}

base::HttpAnswer silence(milliseconds took = {}) {
  base::HttpAnswer given;
  given.why_not = "timed out";
  given.took = took;
  return given;
}

AnswerPattern status(const std::string& text) {
  AnswerPattern pattern;
  pattern.status.texts = {text};
  return pattern;
}

TEST(Mismatch, holds_the_status_to_what_was_promised) {
  EXPECT_EQ(mismatch(status("200"), answer(200), ""), "");
  EXPECT_EQ(mismatch(status("2xx"), answer(204), ""), "");
  EXPECT_EQ(mismatch(status("200"), answer(204), ""), "answered 204 instead of 200");
  EXPECT_EQ(mismatch(status("200"), silence(), ""), "no answer");
}

TEST(Mismatch, no_answer_can_be_what_was_promised) {
  AnswerPattern none;
  none.none = true;
  EXPECT_EQ(mismatch(none, silence(), ""), "");
  EXPECT_EQ(mismatch(none, answer(503), ""), "answered 503");
}

TEST(Mismatch, looks_into_bodies_and_headers_and_never_tells_what_is_there) {
  AnswerPattern pattern;
  pattern.json = {{"/error/code", "unavailable"}, {"/n", "7"}, {"/any", "*"}};
  pattern.headers = {{"Retry-After", "*"}};
  base::HttpAnswer given = answer(503, R"({"error":{"code":"unavailable"},"n":7,"any":null})");
  EXPECT_EQ(mismatch(pattern, given, ""), "no header Retry-After");
  given.headers["retry-after"] = "1";
  EXPECT_EQ(mismatch(pattern, given, ""), "");
  given.body = R"({"error":{"code":"a secret"},"n":7,"any":1})";
  EXPECT_EQ(mismatch(pattern, given, ""), "/error/code is not \"unavailable\"");
  given.body = "no JSON";
  EXPECT_EQ(mismatch(pattern, given, ""), "the body has no /error/code");
  AnswerPattern same;
  same.same = true;
  EXPECT_EQ(mismatch(same, answer(200, "x"), "x"), "");
  EXPECT_EQ(mismatch(same, answer(200, "secret"), "x"), "the body is not the one from before");
}

TEST(Observation, breaks_with_a_single_bad_answer_among_many) {
  Expectation expectation{"comps", status("200"), milliseconds(500), std::nullopt};
  Observation observation(expectation, "");
  for (int i = 0; i < 30; ++i) observation.add(answer(200, "", milliseconds(8)));
  EXPECT_EQ(observation.broken(), "");
  EXPECT_EQ(observation.summary(), "comps: 200 30x; p95 8 ms, slowest 8 ms");
  observation.add(answer(500, "oh no"));
  observation.add(answer(200, "", milliseconds(501)));
  EXPECT_EQ(observation.broken(),
            "comps: answered 500 instead of 200 (1 of 32), took longer than 500 ms (1 of 32)");
  EXPECT_NE(observation.first_bad().find("oh no"), std::string::npos);
  EXPECT_EQ(observation.broken().find("oh no"), std::string::npos);
}

TEST(Observation, holds_the_95th_percentile_of_the_times) {
  Expectation expectation{"comps", status("200"), std::nullopt, milliseconds(100)};
  Observation observation(expectation, "");
  for (int i = 0; i < 19; ++i) observation.add(answer(200, "", milliseconds(10)));
  observation.add(answer(200, "", milliseconds(900)));
  EXPECT_EQ(observation.broken(), "") << "one in twenty may be slow";
  observation.add(answer(200, "", milliseconds(900)));
  EXPECT_EQ(observation.broken(), "comps: p95 is 900 ms, at most 100 ms was promised");
}

TEST(Observation, of_nothing_shows_nothing) {
  const Observation observation({"comps", status("200"), std::nullopt, milliseconds(1)}, "");
  EXPECT_EQ(observation.answers(), 0U);
  EXPECT_EQ(observation.broken(), "");
  EXPECT_EQ(observation.summary(), "comps: not asked");
}

}  // namespace
}  // namespace holdfast::operations
