#include "operations/contract.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/error.h"

namespace holdfast::operations {
namespace {

const std::string whole = R"(title = "Degraded mode"
[service]
url = "http://127.0.0.1:${HOLDFAST_NO_PORT:-8080}"
command = "exec api ${NOT_OURS}"
[service.environment]
REDIS_URL = "redis://127.0.0.1:16379"
[dependency.redis]
listen = "127.0.0.1:16379"
upstream = "127.0.0.1:6379"
[value.token]
command = "echo secret"
fresh = "45s"
[request.comps]
url = "/v1/comps"
headers.Authorization = "Bearer {token}"
body = '{"a":{"b":1}}'
status = [200, "3xx"]
[request.forged]
url = "http://elsewhere/"
status = 401
[[row]]
name = "Redis is slow"
promise = "All endpoints continue to work"
dependency = "redis"
fault = { kind = "latency", delay = "2s", jitter = "100ms" }
restart = true
settle = "1s"
observe = "2s"
recover_within = "5s"
reconnects = true
[[row.expect]]
request = "comps"
status = "2xx"
json."/items/0/id" = "7"
headers.Retry-After = "*"
within = "500ms"
p95 = "100ms"
same = true
[[row.afterwards]]
request = "comps"
headers.X-Cache = "hit"
[[row]]
name = "Redis is down"
dependency = ["redis"]
fault = "refuse"
[[row.expect]]
request = "comps"
status = "none"
[[never]]
request = "forged"
status = 200
)";

Contract parsed(const std::string& text) {
  return parse_contract(text, "/etc/gameday.toml");
}

/// What is said of the whole contract with one piece of it replaced.
std::string refusal(const std::string& piece, const std::string& by) {
  std::string text = whole;
  const std::size_t at = text.find(piece);
  EXPECT_NE(at, std::string::npos) << piece;
  text.replace(at, piece.size(), by);
  try {
    parsed(text);
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::configuration);
    EXPECT_FALSE(error.hint().empty()) << error.message();
    return error.message();
  }
  return "accepted";
}

TEST(Contract, says_all_that_is_written) {
  const Contract contract = parsed(whole);
  EXPECT_EQ(contract.title, "Degraded mode");
  EXPECT_EQ(contract.url, "http://127.0.0.1:8080");
  EXPECT_EQ(contract.command, "exec api ${NOT_OURS}") << "the shell has its own variables";
  EXPECT_EQ(contract.dependencies.at("redis").upstream, "127.0.0.1:6379");
  EXPECT_EQ(contract.values.at("token").fresh, std::chrono::seconds(45));
  EXPECT_EQ(contract.requests.at("comps").url, "http://127.0.0.1:8080/v1/comps");
  EXPECT_EQ(contract.requests.at("forged").url, "http://elsewhere/");
  EXPECT_TRUE(contract.requests.at("comps").status.contains(302));
  EXPECT_FALSE(contract.requests.at("comps").status.contains(201));
  ASSERT_EQ(contract.rows.size(), 2U);
  const ContractRow& slow = contract.rows[0];
  EXPECT_EQ(service::to_string(slow.fault), "answers 2.0 s later, give or take 100 ms");
  EXPECT_TRUE(slow.restart);
  EXPECT_TRUE(slow.reconnects);
  EXPECT_EQ(slow.recover_within, std::chrono::seconds(5));
  ASSERT_EQ(slow.expectations.size(), 1U);
  EXPECT_EQ(slow.expectations[0].within, std::chrono::milliseconds(500));
  EXPECT_EQ(slow.expectations[0].answer.json, (TextPairs{{"/items/0/id", "7"}}));
  EXPECT_TRUE(slow.expectations[0].answer.same);
  EXPECT_EQ(slow.afterwards[0].answer.headers, (TextPairs{{"X-Cache", "hit"}}));
  EXPECT_TRUE(contract.rows[1].expectations[0].answer.none);
  EXPECT_EQ(contract.nevers[0].request, "forged");
}

TEST(Contract, CC11_refuses_what_it_does_not_understand_and_names_the_line) {
  EXPECT_EQ(refusal("settle =", "setle ="), "/etc/gameday.toml:27: unknown key \"setle\" in [row]");
  EXPECT_EQ(refusal("kind = \"latency\"", "kind = \"lateness\""),
            "/etc/gameday.toml:21: unknown fault \"lateness\"");
  EXPECT_NE(refusal("request = \"forged\"\nstatus", "request = \"comp\"\nstatus").find("comp"),
            std::string::npos);
}

TEST(Contract, refuses_a_promise_that_could_not_be_broken) {
  EXPECT_NE(refusal("[[row.expect]]\nrequest = \"comps\"\nstatus = \"none\"\n", "")
                .find("at least one [[row.expect]]"),
            std::string::npos);
  EXPECT_NE(refusal("status = \"none\"\n", "").find("says nothing"), std::string::npos);
  EXPECT_NE(refusal("dependency = [\"redis\"]", "dependency = [\"rediss\"]").find("rediss"),
            std::string::npos);
  EXPECT_NE(refusal("dependency = [\"redis\"]", "").find("dependency"), std::string::npos);
  EXPECT_NE(refusal("delay = \"2s\", ", "").find("delay"), std::string::npos);
  EXPECT_NE(refusal("Redis is down", "Redis is slow").find("two rows"), std::string::npos);
  EXPECT_NE(refusal("Bearer {token}", "Bearer {tokn}").find("tokn"), std::string::npos);
  EXPECT_NE(refusal("command = \"exec api ${NOT_OURS}\"", "").find("restart"), std::string::npos);
  EXPECT_NE(refusal("${HOLDFAST_NO_PORT:-8080}", "${HOLDFAST_NO_PORT}").find("HOLDFAST_NO_PORT"),
            std::string::npos);
  EXPECT_NE(refusal("status = \"2xx\"", "status = \"20x\"").find("status"), std::string::npos);
  EXPECT_NE(refusal("status = \"2xx\"", "status = 20").find("status"), std::string::npos);
}

TEST(Contract, takes_variables_of_the_environment) {
  ::setenv("HOLDFAST_TEST_A", "one", 1);
  ::setenv("HOLDFAST_TEST_EMPTY", "", 1);
  EXPECT_EQ(with_environment("a ${HOLDFAST_TEST_A} b ${HOLDFAST_TEST_A}"), "a one b one");
  EXPECT_EQ(with_environment("${HOLDFAST_TEST_EMPTY:-x:-y}$"), "x:-y$");
  EXPECT_THROW(with_environment("${HOLDFAST_TEST_A"), base::Error);
  ::unsetenv("HOLDFAST_TEST_A");
  ::unsetenv("HOLDFAST_TEST_EMPTY");
}

TEST(Contract, of_the_documents_can_be_read) {
  const std::string text(base::text(base::read_existing_file(HOLDFAST_SOURCE "/docs/gamedays.md")));
  const std::size_t begin = text.find("```toml\n") + 8;
  const Contract contract = parsed(text.substr(begin, text.find("```", begin) - begin));
  EXPECT_EQ(contract.rows.size(), 1U);
  EXPECT_EQ(contract.rows[0].afterwards.size(), 1U);
}

TEST(Contract, survives_any_damage_to_its_text) {
  std::mt19937 numbers(20261123);
  for (int round = 0; round < (std::getenv("HOLDFAST_LONG") != nullptr ? 300000 : 3000); ++round) {
    std::string text = whole;
    for (int change = 0; change < 4; ++change) {
      const std::size_t at = numbers() % text.size();
      if (numbers() % 3 == 0) {
        text.erase(at, numbers() % 12);
      } else {
        text[at] =
            static_cast<char>(numbers() % 3 == 0 ? numbers() % 256 : "\"[]{}=.,\n1a"[at % 11]);
      }
    }
    try {
      parsed(text);
    } catch (const base::Error& error) {
      ASSERT_EQ(error.code(), base::Code::configuration) << error.message() << "\n" << text;
    }
  }
}

}  // namespace
}  // namespace holdfast::operations
