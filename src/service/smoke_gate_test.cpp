#include "service/smoke_gate.h"

#include "base/testing.h"
#include "service/fault_proxy.h"
#include "service/http_listener.h"
#include "service/testing.h"

namespace holdfast::service {
namespace {

using base::Code;
using base::testing::code_of;
using std::chrono::milliseconds;

/// A service that answers at once, reached through a proxy that can make it slow.
class SmokeGate : public ::testing::Test {
 protected:
  SmokeGate()
      : service_(find_address("127.0.0.1:0"), [](const HttpRequest& request) {
          if (request.path == "/missing") return HttpResponse{404, "{}"};
          return HttpResponse{200, std::string(R"({"items":[{"id":7}],"key":")") +
                                       (request.headers.contains("x-key") ? "known" : "none") +
                                       "\"}"};
        }) {
    address_ = proxies_.create({"p", "127.0.0.1:0", service_.address().text()}).settings.listen;
  }
  SmokeScript script(const std::string& head, const std::string& request,
                     const std::string& thresholds) const {
    return parse_smoke(head + "\nurl = \"http://" + address_ + "\"\n[[request]]\nname = \"one\"\n" +
                           request + "\n[thresholds]\n" + thresholds + "\n",
                       "smoke.toml");
  }
  SmokeResult run(const std::string& head, const std::string& request = "path = \"/\"",
                  const std::string& thresholds = "") const {
    return run_smoke(script(head, request, thresholds));
  }

  HttpListener service_;
  FaultProxies proxies_;
  std::string address_;
};

bool failed(const SmokeResult& result, const std::string& metric) {
  return std::ranges::any_of(result.thresholds, [&](const SmokeThreshold& each) {
    return each.metric == metric && !each.holds;
  });
}

TEST_F(SmokeGate, opens_for_a_service_that_answers_as_it_should) {
  ::setenv("HOLDFAST_TEST_KEY", "s3cret", 1);
  const SmokeResult result = run("rate = 100\nduration = \"500ms\"",
                                 "path = \"/\"\nstatus = [200]\ncontains = \"known\"\n"
                                 "headers = { x-key = \"${HOLDFAST_TEST_KEY}\" }\n"
                                 "json = { \"/items/0/id\" = 7 }",
                                 "p95 = \"400ms\"\nsamples = 50");
  EXPECT_TRUE(result.passed()) << k6_summary(result).dump(1);
  EXPECT_EQ(result.iterations, 50U);
  EXPECT_EQ(result.checks.size(), 3U);
}

TEST_F(SmokeGate, goes_on_arriving_while_answers_are_slow) {
  proxies_.add_toxic("p", toxic_from({{"type", "latency"}, {"attributes", {{"latency", 400}}}}));
  const SmokeResult result = run("rate = 50\nduration = \"500ms\"");
  EXPECT_EQ(result.iterations, 25U) << "one after the other it would be two";
  EXPECT_LT(result.took, milliseconds(1800));
  EXPECT_GE(result.percentile(0.5), milliseconds(400));
}

TEST_F(SmokeGate, drops_and_counts_what_is_too_much_at_once_and_does_not_pass) {
  proxies_.add_toxic("p", toxic_from({{"type", "latency"}, {"attributes", {{"latency", 300}}}}));
  const SmokeResult result = run("rate = 50\nduration = \"400ms\"\nin_flight = 2");
  EXPECT_GT(result.dropped, 10U);
  EXPECT_EQ(result.dropped + result.iterations, 20U);
  EXPECT_TRUE(failed(result, "dropped_iterations"));
  EXPECT_FALSE(result.passed());
}

TEST_F(SmokeGate, shuts_for_slow_answers_errors_and_failed_checks) {
  proxies_.add_toxic("p", toxic_from({{"type", "latency"}, {"attributes", {{"latency", 100}}}}));
  const SmokeResult slow = run("rate = 60\nduration = \"500ms\"", "path = \"/\"", "p95 = \"50ms\"");
  EXPECT_TRUE(failed(slow, "http_req_duration"));
  EXPECT_FALSE(failed(slow, "http_req_failed"));
  proxies_.reset();
  const SmokeResult missing = run("rate = 10\nduration = \"200ms\"", "path = \"/missing\"");
  EXPECT_TRUE(failed(missing, "http_req_failed"));
  EXPECT_NE(missing.first_failure.find("404"), std::string::npos);
  const SmokeResult other =
      run("rate = 10\nduration = \"200ms\"", "path = \"/\"\njson = { \"/items/0/id\" = 8 }");
  EXPECT_TRUE(failed(other, "checks"));
  EXPECT_FALSE(failed(other, "http_req_failed"));
  proxies_.change("p", {std::nullopt, std::nullopt, false});
  const SmokeResult down = run("rate = 10\nduration = \"200ms\"");
  EXPECT_EQ(down.failed.share(), 1);
  EXPECT_FALSE(down.passed());
}

TEST_F(SmokeGate, never_passes_with_too_few_samples) {
  const SmokeResult few = run("rate = 50\nduration = \"400ms\"", "path = \"/\"", "p99 = \"10s\"");
  EXPECT_TRUE(failed(few, "http_req_duration")) << "20 samples say nothing of the slowest of 100";
  const SmokeResult wanted = run("rate = 50\nduration = \"400ms\"", "path = \"/\"", "samples = 21");
  EXPECT_TRUE(failed(wanted, "http_reqs"));
  SmokeResult none;
  judge(SmokeThresholds(), none);
  EXPECT_FALSE(none.passed());
}

TEST_F(SmokeGate, sums_up_as_k6_does) {
  const auto summary = k6_summary(
      run("rate = 20\nduration = \"500ms\"", "path = \"/\"", "p50 = \"1ms\"\np95 = \"5s\""));
  const auto& metrics = summary.at("metrics");
  for (const char* value : {"avg", "min", "med", "max", "p(90)", "p(95)"}) {
    EXPECT_GT(metrics.at("http_req_duration").at(value).get<double>(), 0) << value;
  }
  EXPECT_EQ(metrics.at("http_req_failed").at("value"), 0.0);
  EXPECT_EQ(metrics.at("http_req_failed").at("fails"), 10);
  EXPECT_EQ(metrics.at("iterations").at("count"), 10);
  EXPECT_EQ(metrics.at("dropped_iterations").at("count"), 0);
  EXPECT_EQ(metrics.at("checks").at("value"), 1.0);
  // 10 samples are too few for p95: true means that it was crossed.
  EXPECT_EQ(metrics.at("http_req_duration").at("thresholds").at("p(95)<=5000"), true);
  EXPECT_EQ(metrics.at("http_reqs").at("thresholds").at("count>=1"), false);
  const auto& check = summary.at("root_group").at("checks").at("one: status is 200 to 399");
  EXPECT_EQ(check.at("passes"), 10);
  EXPECT_EQ(check.at("fails"), 0);
}

TEST_F(SmokeGate, refuses_files_that_make_no_sense) {
  const std::string good = "rate = 1\nduration = \"1s\"";
  EXPECT_EQ(code_of([&] { script("rate = 0\nduration = \"1s\"", "path = \"/\"", ""); }),
            Code::configuration);
  EXPECT_EQ(code_of([&] { script("rate = 1", "path = \"/\"", ""); }), Code::configuration);
  EXPECT_EQ(code_of([&] { script("rate = 9999\nduration = \"1d\"", "path = \"/\"", ""); }),
            Code::configuration);
  for (const char* request :
       {"", "path = \"x\"", "url = \"ftp://a\"", "path = \"/\"\nurl = \"http://a\"",
        "path = \"/\"\nstatus = 7", "path = \"/\"\nstatus = [\"200\"]", "path = \"/\"\ntypo = 1",
        "path = \"/\"\njson = { \"no/pointer\" = 1 }", "path = \"/\"\nbody = \"${HOLDFAST_UNSET}\"",
        "path = \"/\"\nheaders = { \"a b\" = \"c\" }"}) {
    EXPECT_EQ(code_of([&] { script(good, request, ""); }), Code::configuration) << request;
  }
  for (const char* thresholds : {"p95 = 200", "errors = 2", "samples = 0", "p97 = \"1s\""}) {
    EXPECT_EQ(code_of([&] { script(good, "path = \"/\"", thresholds); }), Code::configuration)
        << thresholds;
  }
}

}  // namespace
}  // namespace holdfast::service
