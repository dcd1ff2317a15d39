#include "service/fault_proxy_api.h"

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "service/testing.h"

namespace holdfast::service {
namespace {

using nlohmann::json;
using State = ParsedRequest::State;

ParsedRequest parse(const std::string& line, const std::string& headers = "Host: localhost\r\n",
                    const std::string& body = "") {
  return parse_request(line + "\r\n" + headers + "\r\n" + body);
}

TEST(HttpListener, reads_a_request_that_is_whole) {
  const ParsedRequest parsed =
      parse("POST /reset?x HTTP/1.1", "Host: 127.0.0.1:8474\r\nContent-Length: 3\r\n", "abcGET");
  EXPECT_EQ(parsed.state, State::complete);
  EXPECT_EQ(parsed.request.path, "/reset");
  EXPECT_EQ(parsed.request.body, "abc");
  EXPECT_EQ(parse("POST / HTTP/1.1", "Host: localhost\r\nContent-Length: 4\r\n", "abc").state,
            State::incomplete);
}

TEST(HttpListener, lets_browsers_read_only_where_there_is_only_something_to_read) {
  const auto state = [](const std::string& request, Audience audience) {
    return parse_request(request, audience).state;
  };
  constexpr auto complete = ParsedRequest::State::complete;
  constexpr auto bad = ParsedRequest::State::bad;
  const std::string browser = "Host: localhost\r\nUser-Agent: Mozilla/5.0\r\n";
  EXPECT_EQ(state("GET / HTTP/1.1\r\n" + browser + "\r\n", Audience::readers), complete);
  EXPECT_EQ(state("GET / HTTP/1.1\r\n" + browser + "\r\n", Audience::programs), bad);
  EXPECT_EQ(state("POST / HTTP/1.1\r\n" + browser + "\r\n", Audience::readers), bad);
  EXPECT_EQ(state("GET / HTTP/1.1\r\n" + browser + "Origin: http://evil.example\r\n\r\n",
                  Audience::readers),
            bad);
  EXPECT_EQ(state("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Audience::readers), bad);
}

TEST(HttpListener, refuses_browsers_rebound_names_and_what_is_not_http) {
  const auto status = [](const ParsedRequest& parsed) {
    EXPECT_EQ(parsed.state, State::bad);
    return parsed.refusal.status;
  };
  const std::string get = "GET / HTTP/1.1";
  EXPECT_EQ(status(parse(get, "Host: evil.example\r\n")), 403);
  EXPECT_EQ(status(parse(get, "Host: 127.evil.example\r\n")), 403);
  EXPECT_EQ(status(parse(get, "")), 403);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nOrigin: http://evil.example\r\n")), 403);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nUser-Agent: Mozilla/5.0\r\n")), 403);
  EXPECT_EQ(status(parse("GET /", "Host: localhost\r\n")), 400);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nHost: localhost\r\n")), 400);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nContent-Length: -1\r\n")), 400);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nContent-Length: 9999999\r\n")), 413);
  EXPECT_EQ(status(parse(get, "Host: localhost\r\nTransfer-Encoding: chunked\r\n")), 411);
  EXPECT_EQ(status(parse_request(std::string(20'000, 'x'))), 431);
}

TEST(HttpListener, listens_where_nobody_else_comes_only) {
  EXPECT_EQ(base::testing::code_of([] {
              HttpListener(find_address("0.0.0.0:0"), [](const auto&) { return HttpResponse(); });
            }),
            base::Code::refused);
}

TEST(HttpListener, answers_requests_that_come_together_and_in_pieces) {
  const HttpListener listener(find_address("127.0.0.1:0"), [](const HttpRequest& request) {
    return HttpResponse{200, request.body};
  });
  const base::Fd client = testing::connected(listener.address().text());
  const std::string one = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab";
  const std::string last = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  testing::send_all(client, one + one.substr(0, 30));
  const std::string answer = testing::receive(client, 40);
  testing::send_all(client, one.substr(30) + last);
  const std::string all = answer + testing::receive(client, 10'000);
  std::size_t count = 0;
  for (std::size_t at = all.find("200 OK"); at != std::string::npos;
       at = all.find("200 OK", at + 1))
    ++count;
  EXPECT_EQ(count, 3U) << all;
}

TEST(HttpListener, fuzz_of_requests) {
  base::testing::Random random(3);
  const std::string seed =
      "POST /proxies/a/toxics HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 20\r\nX: y\r\n\r\n"
      "{\"type\":\"latency\"}  ";
  std::size_t complete = 0;
  for (std::size_t turn = 0; turn < base::testing::fuzz_iterations(20'000); ++turn) {
    const base::Bytes bytes = base::testing::mutated(base::view(seed), random);
    const ParsedRequest parsed = parse_request(base::text(bytes));
    if (parsed.state != State::complete) continue;
    ++complete;
    EXPECT_LE(parsed.used, bytes.size());
    EXPECT_EQ(parsed.request.path.front(), '/');
  }
  EXPECT_GT(complete, 100U);
}

class Api : public ::testing::Test {
 protected:
  HttpResponse ask(const std::string& method, const std::string& path, const json& body = {}) {
    return answer_api(proxies_, {method, path, {}, body.is_null() ? "" : body.dump()});
  }
  json must(const std::string& method, const std::string& path, const json& body = {}) {
    const HttpResponse response = ask(method, path, body);
    EXPECT_LT(response.status, 300) << path << ": " << response.body;
    return response.body.empty() ? json() : json::parse(response.body);
  }
  FaultProxies proxies_;
};

TEST_F(Api, answers_as_toxiproxy_does) {
  const json made = must("POST", "/proxies", {{"name", "a"}, {"upstream", "127.0.0.1:1"}});
  EXPECT_EQ(made.at("enabled"), true);
  EXPECT_EQ(made.at("toxics"), json::array());
  EXPECT_EQ(must("GET", "/proxies").at("a").at("listen"), made.at("listen"));
  const json toxic = must("POST", "/proxies/a/toxics", {{"type", "latency"}});
  EXPECT_EQ(toxic, json::parse(R"({"name":"latency_downstream","type":"latency","toxicity":1.0,
      "stream":"downstream","attributes":{"latency":0,"jitter":0}})"));
  EXPECT_EQ(
      must("PATCH", "/proxies/a/toxics/latency_downstream", {{"attributes", {{"latency", 7}}}})
          .at("attributes")
          .at("latency"),
      7);
  EXPECT_EQ(must("GET", "/proxies/a/toxics").size(), 1U);
  EXPECT_EQ(ask("POST", "/proxies/a/toxics", {{"type", "latency"}}).status, 409);
  EXPECT_EQ(ask("DELETE", "/proxies/a/toxics/latency_downstream").status, 204);
  EXPECT_EQ(must("POST", "/proxies/a", {{"enabled", false}}).at("enabled"), false);
  EXPECT_EQ(ask("POST", "/reset").status, 204);
  EXPECT_EQ(must("GET", "/proxies/a").at("enabled"), true);
  const json populated = must("POST", "/populate",
                              json::array({{{"name", "a"}, {"upstream", "127.0.0.1:2"}},
                                           {{"name", "b"}, {"upstream", "127.0.0.1:3"}}}));
  EXPECT_EQ(populated.at("proxies").size(), 2U);
  EXPECT_EQ(populated.at("proxies")[0].at("upstream"), "127.0.0.1:2");
  EXPECT_EQ(ask("DELETE", "/proxies/b").status, 204);
  EXPECT_EQ(ask("GET", "/proxies/b").status, 404);
  EXPECT_EQ(ask("POST", "/proxies", {{"name", "c"}}).status, 400);
  EXPECT_EQ(ask("PUT", "/proxies/a").status, 405);
  EXPECT_EQ(ask("GET", "/").status, 404);
  EXPECT_TRUE(must("GET", "/version").contains("version"));
  EXPECT_EQ(must("POST", "/lease", {{"ms", 60'000}}).at("ms"), 60'000);
}

TEST_F(Api, fuzz_of_paths_and_bodies) {
  base::testing::Random random(5);
  must("POST", "/proxies", {{"name", "a"}, {"upstream", "127.0.0.1:1"}});
  // A mutation must not make an address of somewhere else.
  const std::vector<std::string> bodies = {
      R"({"type":"slicer","name":"t","attributes":{"average_size":3},"toxicity":0.5})",
      R"({"enabled":false,"upstream":"unix:/a"})", R"({"ms":100000})",
      R"([{"name":"b","upstream":"unix:/a","enabled":true}])"};
  const std::vector<std::string> paths = {"/proxies",  "/proxies/a", "/proxies/a/toxics",
                                          "/populate", "/lease",     "/proxies/a/toxics/t"};
  const std::vector<std::string> methods = {"POST", "PATCH", "GET", "DELETE"};
  std::map<int, int> seen;
  for (std::size_t turn = 0;
       turn < std::min<std::size_t>(base::testing::fuzz_iterations(3000), 200'000); ++turn) {
    const std::string& body = bodies[random.below(bodies.size())];
    const std::string changed(base::text(base::testing::mutated(base::view(body), random)));
    if (changed.find("listen") != std::string::npos) continue;
    const bool as_is = random.chance(40);
    const HttpResponse response = answer_api(proxies_, {methods[random.below(methods.size())],
                                                        paths[random.below(paths.size())],
                                                        {},
                                                        as_is ? body : changed});
    ++seen[response.status];
    if (response.body.empty()) continue;
    EXPECT_FALSE(json::parse(response.body, nullptr, false).is_discarded());
  }
  EXPECT_EQ(seen[500], 0);
  EXPECT_GT(seen[200], 50);
  EXPECT_GT(seen[400], 50);
}

}  // namespace
}  // namespace holdfast::service
