// Tokens and the issuer's outages, seen from outside the real program. Each way to forge a token is
// tried in reference/src/auth; here, that every answer depends on it.

#include <gtest/gtest.h>

#include "harness/reference.h"

namespace reference::tests {
namespace {

using namespace std::chrono_literals;

const Environment quick = {{"JWKS_REFRESH", "1s"}, {"JWKS_MAX_STALE", "3s"}};

std::string forged(const Service& service) {
  return SigningKey(service.issuer.key().kid()).token(service.issuer.claims("org_ours", "admin"));
}

TEST(Tokens, decide_about_every_answer) {
  const Service service;
  const auto status = [&](const std::string& token) {
    return service.api->client(token).get("/buildings").status;
  };
  const Issuer& issuer = service.issuer;
  const std::string good = issuer.token(Service::ours, "viewer");
  json expired = issuer.claims(Service::ours, "admin");
  expired["exp"] = seconds_from_now(-60);
  const std::string payload = issuer.claims(Service::ours, "admin").dump();
  EXPECT_EQ(status(good), 200);
  EXPECT_EQ(status(issuer.key().token(issuer.claims_v1(Service::ours, "member"))), 200);
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("nonsense"), 401);
  EXPECT_EQ(status(forged(service)), 401);
  EXPECT_EQ(status(issuer.key().token(expired)), 401);
  EXPECT_EQ(status(base64url(R"({"alg":"none","kid":"key-1"})") + "." + base64url(payload) + "."),
            401);
  EXPECT_EQ(status(hmac_token(R"({"alg":"HS256","kid":"key-1"})", payload, issuer.key().pem())),
            401);
  // This ends a process in which cjose sees it.
  EXPECT_EQ(status(good.substr(0, good.rfind('.') + 1) + "A"), 401);
  EXPECT_EQ(service.api->client().get("/health").status, 200);
  const Answer refused = service.api->client("nonsense").get("/buildings");
  EXPECT_EQ(refused.header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(service.api->log().find(good.substr(0, 40)), std::string::npos) << "tokens in the log";
}

TEST(Tokens, are_verified_while_the_issuer_is_down_or_hangs_but_not_for_ever) {
  for (const auto mode : {Issuer::Mode::refusing, Issuer::Mode::hanging}) {
    Service service(quick);
    Client client = service.client("viewer");
    service.issuer.set(mode);
    const auto since = std::chrono::steady_clock::now();
    std::chrono::milliseconds slowest{0};
    for (int user = 0; std::chrono::steady_clock::now() - since < 1500ms; ++user) {
      // Each time another token, which nobody can remember.
      const std::string name = "user_" + std::to_string(user);
      const Answer answer = service.api->client(service.issuer.token(Service::ours, "viewer", name))
                                .get("/buildings");
      ASSERT_EQ(answer.status, 200) << answer.body;
      slowest = std::max(slowest, answer.took);
      ASSERT_EQ(service.api->client(forged(service)).get("/buildings").status, 401);
    }
    EXPECT_LT(slowest, 500ms) << "nobody waits for the issuer";
    Answer last;
    eventually("keys are too old", [&] { return (last = client.get("/buildings")).status == 503; });
    EXPECT_GE(std::chrono::steady_clock::now() - since, 1500ms);
    EXPECT_NE(last.header("Retry-After"), "");
    EXPECT_EQ(client.get("/health").status, 200);
    service.issuer.set(Issuer::Mode::answering);
    eventually("keys are back", [&] { return client.get("/buildings").status == 200; });
  }
}

TEST(Tokens, are_refused_by_a_cold_cache_and_accepted_once_the_issuer_is_back) {
  Service service(quick);
  service.issuer.set(Issuer::Mode::erroneous);
  service.api->process().signal(SIGTERM);
  service.api->process().wait();
  service.start();
  Client client = service.client("viewer");
  EXPECT_EQ(client.get("/buildings").status, 503);
  EXPECT_EQ(service.api->client(forged(service)).get("/buildings").status, 503);
  service.issuer.set(Issuer::Mode::answering);
  eventually("keys are there", [&] { return client.get("/buildings").status == 200; });
}

TEST(Tokens, of_unknown_keys_do_not_reach_the_issuer_each) {
  const Service service;
  const int before = service.issuer.requests();
  const json claims = service.issuer.claims(Service::ours, "admin");
  for (int each = 0; each < 200; ++each) {
    const SigningKey& key = service.issuer.key();
    const std::string header = R"({"alg":"RS256","kid":"evil-)" + std::to_string(each) + R"("})";
    ASSERT_EQ(service.api->client(key.token(header, claims.dump())).get("/buildings").status, 401);
  }
  EXPECT_LE(service.issuer.requests() - before, 1);
}

TEST(Tokens, depend_on_the_issuer_when_that_is_broken_on_purpose) {
  Service service(Environment{{"REFERENCE_BREAK", "no-jwks-cache"}});
  Client client = service.client("viewer");
  EXPECT_EQ(client.get("/buildings").status, 200);
  service.issuer.set(Issuer::Mode::refusing);
  EXPECT_EQ(client.get("/buildings").status, 503);
}

}  // namespace
}  // namespace reference::tests
