#include "auth/jwks_cache.h"

#include <gtest/gtest.h>

#include "auth/token_verifier.h"
#include "harness/issuer.h"
#include "http/problem.h"

namespace reference::auth {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using std::chrono::steady_clock;
using tests::Issuer;
using tests::SigningKey;

bool eventually(const auto& condition) {
  for (const auto end = steady_clock::now() + 20s; steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

JwksOptions options_for(const Issuer& issuer) {
  JwksOptions options;
  options.url = issuer.jwks_url();
  options.limits.time = 500ms;
  return options;
}

/// True if the cache refuses for want of keys.
bool refuses(JwksCache& cache) {
  try {
    cache.find("key-1");
    return false;
  } catch (const http::Problem& problem) {
    EXPECT_EQ(problem.status(), 503);
    EXPECT_TRUE(problem.retry_after().has_value());
    return true;
  }
}

TEST(JwksCache, serves_many_requests_from_one_fetch) {
  const Issuer issuer;
  JwksCache cache(options_for(issuer));
  for (int each = 0; each < 1000; ++each) EXPECT_TRUE(cache.find("key-1"));
  EXPECT_EQ(issuer.requests(), 1);
}

TEST(JwksCache, refuses_while_it_is_cold_and_serves_once_the_issuer_answers) {
  for (const auto mode : {Issuer::Mode::refusing, Issuer::Mode::hanging, Issuer::Mode::erroneous}) {
    Issuer issuer;
    issuer.set(mode);
    JwksOptions options = options_for(issuer);
    options.retry = 20ms;
    JwksCache cache(options);
    EXPECT_TRUE(refuses(cache));
    issuer.set(Issuer::Mode::answering);
    EXPECT_TRUE(eventually([&] { return !refuses(cache); }));
  }
}

TEST(JwksCache, serves_its_keys_while_the_issuer_is_down_but_not_for_ever) {
  for (const auto mode : {Issuer::Mode::refusing, Issuer::Mode::hanging, Issuer::Mode::erroneous}) {
    Issuer issuer;
    JwksOptions options = options_for(issuer);
    options.refresh = 50ms;
    options.max_stale = 1500ms;
    JwksCache cache(options);
    issuer.set(mode);
    const auto down_since = steady_clock::now();
    while (steady_clock::now() < down_since + 1s) {
      const auto before = steady_clock::now();
      ASSERT_FALSE(refuses(cache));
      ASSERT_LT(steady_clock::now() - before, 200ms) << "a known key waits for nobody";
      std::this_thread::sleep_for(5ms);
    }
    EXPECT_TRUE(eventually([&] { return refuses(cache); }));
    EXPECT_LT(steady_clock::now() - down_since, 3s);
    issuer.set(Issuer::Mode::answering);
    EXPECT_TRUE(eventually([&] { return !refuses(cache); }));
  }
}

TEST(JwksCache, keeps_its_keys_when_the_answer_is_no_key_set) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.refresh = 20ms;
  JwksCache cache(options);
  json encryption = issuer.key().jwk();
  encryption["use"] = "enc";
  // Good but for its size.
  const json large = {{"keys", {SigningKey("key-2").jwk()}},
                      {"padding", std::string(300 * 1024, 'x')}};
  const std::vector<std::string> answers = {"null",
                                            "{}",
                                            "<html>",
                                            R"({"keys":[]})",
                                            R"({"keys":{}})",
                                            R"({"keys":[1,null,{}]})",
                                            json{{"keys", {encryption}}}.dump(),
                                            large.dump()};
  for (const std::string& answer : answers) {
    issuer.publish_text(answer);
    const int before = issuer.requests();
    ASSERT_TRUE(eventually([&] { return issuer.requests() >= before + 2; }));
    EXPECT_TRUE(cache.find("key-1")) << answer.substr(0, 80);
  }
}

TEST(JwksCache, follows_a_rotation_and_forgets_a_key_that_was_removed) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.unknown_pause = 0ms;
  JwksCache cache(options);
  const SigningKey first = issuer.key();
  const SigningKey second("key-2");
  issuer.publish({second, first});
  EXPECT_TRUE(cache.find("key-2")) << "an unknown kid is asked for";
  EXPECT_TRUE(cache.find("key-1")) << "keys overlap";
  issuer.publish({second});
  EXPECT_FALSE(cache.find("key-3"));
  EXPECT_FALSE(cache.known("key-1"));
}

TEST(JwksCache, cannot_be_used_to_hammer_the_issuer) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.unknown_pause = 400ms;
  JwksCache cache(options);
  const auto begin = steady_clock::now();
  std::vector<std::thread> attackers;
  for (int each = 0; each < 4; ++each) {
    attackers.emplace_back([&, each] {
      for (int kid = 0; steady_clock::now() < begin + 1s; ++kid) {
        EXPECT_FALSE(cache.find("evil-" + std::to_string(each) + "-" + std::to_string(kid)));
      }
    });
  }
  for (std::thread& each : attackers) each.join();
  EXPECT_GE(issuer.requests(), 2);
  EXPECT_LE(issuer.requests(), 4) << "one at the start, then one in 400 ms";
}

TEST(JwksCache, lets_few_wait_for_an_unknown_key_while_the_issuer_hangs) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.limits.time = 5s;
  options.unknown_pause = 0ms;
  JwksCache cache(options);
  issuer.set(Issuer::Mode::hanging);
  std::atomic<int> waited = 0;
  std::vector<std::thread> requests;
  for (int each = 0; each < 8; ++each) {
    requests.emplace_back([&] {
      const auto before = steady_clock::now();
      EXPECT_FALSE(cache.find("key-2"));
      if (steady_clock::now() - before > 500ms) ++waited;
      EXPECT_LT(steady_clock::now() - before, 2s);
    });
  }
  EXPECT_TRUE(cache.find("key-1"));
  for (std::thread& each : requests) each.join();
  EXPECT_LE(waited, 2);
}

TEST(JwksCache, is_no_cache_when_it_is_broken_on_purpose) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.cached = false;
  JwksCache cache(options);
  EXPECT_TRUE(cache.find("key-1"));
  EXPECT_TRUE(cache.find("key-1"));
  EXPECT_EQ(issuer.requests(), 2);
  issuer.set(Issuer::Mode::refusing);
  EXPECT_TRUE(refuses(cache));
}

TEST(JwksCache, ends_soon_although_the_issuer_hangs) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.refresh = 20ms;
  options.limits.time = 60s;
  auto cache = std::make_unique<JwksCache>(options);
  issuer.set(Issuer::Mode::hanging);
  const int before = issuer.requests();
  ASSERT_TRUE(eventually([&] { return issuer.requests() > before; }));
  const auto begin = steady_clock::now();
  cache.reset();
  EXPECT_LT(steady_clock::now() - begin, 5s);
}

TEST(TokenVerifier, forgets_a_token_whose_key_was_removed_or_replaced) {
  Issuer issuer;
  JwksOptions options = options_for(issuer);
  options.refresh = 20ms;
  TokenVerifier verifier({issuer.url(), {Issuer::party}}, options);
  const SigningKey first = issuer.key();
  const std::string token = issuer.token("org_1", "admin");
  const auto refused = [&] {
    try {
      verifier.verify(token);
      return false;
    } catch (const http::Problem& problem) {
      return problem.status() == 401;
    }
  };
  EXPECT_FALSE(refused());
  issuer.publish({SigningKey("key-2")});
  EXPECT_TRUE(eventually(refused));
  issuer.publish({first});
  EXPECT_TRUE(eventually([&] { return !refused(); }));
  issuer.publish({SigningKey("key-1")});
  EXPECT_TRUE(eventually(refused)) << "another key under the same kid";
}

TEST(KeySet, takes_only_keys_that_may_verify_rs256) {
  const json good = SigningKey("good").jwk();
  std::vector<json> bad(9, good);
  bad[0]["kty"] = "oct";
  bad[1]["use"] = "enc";
  bad[2]["alg"] = "RS512";
  bad[3]["key_ops"] = {"encrypt"};
  bad[4]["e"] = "AQ";  // 1: every text would be its own signature
  bad[5].erase("kid");
  bad[6]["n"] = "not base64url!";
  bad[7] = SigningKey("short", 1024).jwk();
  bad[8]["kid"] = "";
  json document = {{"keys", {good}}};
  for (std::size_t each = 0; each < bad.size(); ++each) {
    if (each != 5 && each != 8) bad[each]["kid"] = "bad-" + std::to_string(each);
    document["keys"].push_back(bad[each]);
    EXPECT_THROW(read_key_set(json{{"keys", {bad[each]}}}.dump()), std::runtime_error) << each;
  }
  EXPECT_EQ(read_key_set(document.dump()).size(), 1U);
}

TEST(KeySet, passes_over_a_kid_that_two_keys_bear) {
  const json first = SigningKey("twice").jwk();
  const json document = {
      {"keys", {first, SigningKey("twice").jwk(), SigningKey("once").jwk(), first}}};
  const KeySet keys = read_key_set(document.dump());
  EXPECT_EQ(keys.size(), 1U);
  EXPECT_TRUE(keys.contains("once"));
}

}  // namespace
}  // namespace reference::auth
