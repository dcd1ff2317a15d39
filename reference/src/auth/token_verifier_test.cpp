#include "auth/token_verifier.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "harness/issuer.h"
#include "http/problem.h"

namespace reference::auth {
namespace {

using nlohmann::json;
using tests::base64url;
using tests::Issuer;
using tests::seconds_from_now;
using tests::SigningKey;

class Tokens : public ::testing::Test {
 protected:
  /// The status that a token is refused with; 200 if it is accepted.
  int status(const std::string& token) {
    try {
      verifier_.verify(token);
      return 200;
    } catch (const http::Problem& problem) {
      return problem.status();
    }
  }
  int status_with(const std::string& claim, const json& value) {
    json claims = good();
    claims[claim] = value;
    return status(issuer_.key().token(claims));
  }
  int status_without(const std::string& claim) {
    json claims = good();
    claims.erase(claim);
    return status(issuer_.key().token(claims));
  }
  int status_with_header(const std::string& header) {
    return status(issuer_.key().token(header, good().dump()));
  }
  json good() const { return issuer_.claims("org_1", "admin"); }

  Issuer issuer_;
  TokenVerifier verifier_{{issuer_.url(), {Issuer::party}}, [&] {
                            JwksOptions keys;
                            keys.url = issuer_.jwks_url();
                            keys.unknown_pause = std::chrono::hours(1);
                            return keys;
                          }()};
};

TEST_F(Tokens, of_both_versions_of_claims_say_who_asks) {
  const Principal second = verifier_.verify(issuer_.key().token(good()));
  EXPECT_EQ(second.user, "user_1");
  EXPECT_EQ(second.organisation, "org_1");
  EXPECT_EQ(second.role, Role::admin);
  const Principal first =
      verifier_.verify(issuer_.key().token(issuer_.claims_v1("org_2", "editor", "user_2")));
  EXPECT_EQ(first.user, "user_2");
  EXPECT_EQ(first.organisation, "org_2");
  EXPECT_EQ(first.role, Role::editor);
  const auto member = issuer_.key().token(issuer_.claims_v1("org_2", "member"));
  EXPECT_EQ(verifier_.verify(member).role, Role::viewer);
}

TEST_F(Tokens, without_an_organisation_or_a_known_role_may_do_nothing) {
  EXPECT_EQ(status_without("o"), 403);
  EXPECT_EQ(status_with("o", json{{"id", "org_1"}, {"rol", "owner"}}), 403);
  EXPECT_EQ(status_with("o", json{{"id", "org_1"}}), 403);
  EXPECT_EQ(status_with("o", json{{"rol", "admin"}}), 403);
  // Claims of version 1 in a token of version 2 count for nothing.
  json mixed = issuer_.claims_v1("org_1", "admin");
  mixed["v"] = 2;
  EXPECT_EQ(status(issuer_.key().token(mixed)), 403);
}

TEST_F(Tokens, are_accepted_only_within_their_time) {
  EXPECT_EQ(status_with("exp", seconds_from_now(-30)), 401);
  EXPECT_EQ(status_with("exp", seconds_from_now(-2)), 200) << "clocks differ a little";
  EXPECT_EQ(status_with("nbf", seconds_from_now(30)), 401);
  EXPECT_EQ(status_with("iat", seconds_from_now(30)), 401);
  EXPECT_EQ(status_without("exp"), 401);
  for (const json& odd : {json("2099"), json(-1), json(1e300), json(nullptr), json::array()}) {
    EXPECT_EQ(status_with("exp", odd), 401) << odd;
  }
}

TEST_F(Tokens, are_accepted_only_from_their_issuer_and_for_our_party) {
  EXPECT_EQ(status_with("iss", "https://other.example.com"), 401);
  EXPECT_EQ(status_with("iss", issuer_.url() + "/"), 401);
  EXPECT_EQ(status_without("iss"), 401);
  EXPECT_EQ(status_with("azp", "https://other.example.com"), 401);
  EXPECT_EQ(status_with("azp", json::array({Issuer::party})), 401);
  EXPECT_EQ(status_with("azp", ""), 401);
  EXPECT_EQ(status_without("azp"), 200) << "azp may be absent";
}

TEST_F(Tokens, of_a_pending_session_or_with_malformed_claims_are_refused) {
  EXPECT_EQ(status_with("sts", "pending"), 401);
  EXPECT_EQ(status_without("sub"), 401);
  EXPECT_EQ(status_with("sub", std::string("user\n1")), 401);
  EXPECT_EQ(status_with("sub", std::string(300, 'u')), 401);
  EXPECT_EQ(status_with("v", 3), 401);
  EXPECT_EQ(status_with("o", "org_1"), 401);
  EXPECT_EQ(status_with("o", json{{"id", std::string("org_1\0x", 7)}, {"rol", "admin"}}), 401);
}

TEST_F(Tokens, that_are_forged_are_refused) {
  const std::string token = issuer_.key().token(good());
  EXPECT_EQ(status(token), 200);
  // Signed by another key under the issuer's kid.
  EXPECT_EQ(status(SigningKey(issuer_.key().kid()).token(good())), 401);
  // Other claims under a good signature.
  json other = good();
  other["o"]["id"] = "org_2";
  const std::string signature = token.substr(token.rfind('.'));
  EXPECT_EQ(status(token.substr(0, token.find('.') + 1) + base64url(other.dump()) + signature),
            401);
  EXPECT_EQ(status(token.substr(0, token.rfind('.') + 1)), 401);
  EXPECT_EQ(status(token.substr(0, token.rfind('.'))), 401);
  EXPECT_EQ(status(token + ".e30"), 401);
}

TEST_F(Tokens, of_no_algorithm_or_another_are_refused_however_it_is_spelled) {
  for (const char* none : {"none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "RS384", "PS256",
                           "ES256", "HS256", "dir"}) {
    const json header = {{"alg", none}, {"kid", issuer_.key().kid()}, {"typ", "JWT"}};
    EXPECT_EQ(status_with_header(header.dump()), 401) << none;
    EXPECT_EQ(status(base64url(header.dump()) + "." + base64url(good().dump()) + "."), 401) << none;
  }
  EXPECT_EQ(status_with_header(R"({"kid":"key-1","typ":"JWT"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":null,"kid":"key-1"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":["RS256"],"kid":"key-1"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"none","alg":"RS256","kid":"key-1"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-1"})"), 200);
}

TEST_F(Tokens, signed_by_the_public_key_as_a_secret_are_refused) {
  const std::string pem = issuer_.key().pem();
  const std::string jwk = issuer_.key().jwk().dump();
  const json header = {{"alg", "HS256"}, {"kid", issuer_.key().kid()}, {"typ", "JWT"}};
  json pinned = header;
  pinned["alg"] = "RS256";
  for (const std::string& secret : {pem, jwk, issuer_.key().jwk()["n"].get<std::string>()}) {
    EXPECT_EQ(status(tests::hmac_token(header.dump(), good().dump(), secret)), 401);
    EXPECT_EQ(status(tests::hmac_token(pinned.dump(), good().dump(), secret)), 401);
  }
}

TEST_F(Tokens, cannot_bring_their_own_key) {
  const SigningKey own("key-1");
  Issuer evil;
  evil.publish({own});
  for (const json& extra :
       {json{{"jwk", own.jwk()}}, json{{"jku", evil.jwks_url()}}, json{{"x5u", evil.url()}}}) {
    json header = {{"alg", "RS256"}, {"kid", "key-1"}, {"typ", "JWT"}};
    header.update(extra);
    EXPECT_EQ(status(own.token(header.dump(), good().dump())), 401) << extra;
    header["kid"] = "key-of-nobody";
    EXPECT_EQ(status(own.token(header.dump(), good().dump())), 401) << extra;
  }
  EXPECT_EQ(evil.requests(), 0);
}

TEST_F(Tokens, must_name_one_known_key_and_be_session_tokens) {
  EXPECT_EQ(status_with_header(R"({"alg":"RS256"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":""})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":1})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-2"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-2","kid":"key-1"})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-1","crit":["exp"]})"), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-1","typ":"at+jwt"})"), 401);
}

TEST_F(Tokens, that_are_huge_or_garbage_are_refused) {
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("."), 401);
  EXPECT_EQ(status(".."), 401);
  EXPECT_EQ(status("garbage"), 401);
  EXPECT_EQ(status(std::string(10'000'000, 'A')), 401);
  EXPECT_EQ(status_with("padding", std::string(8192, 'x')), 401);
  EXPECT_EQ(status_with_header(std::string(2000, '[') + std::string(2000, ']')), 401);
  EXPECT_EQ(status_with_header(R"({"alg":"RS256","kid":"key-1"} {})"), 401);
  EXPECT_EQ(status(issuer_.key().token(R"({"alg":"RS256","kid":"key-1"})", "[]")), 401);
  EXPECT_EQ(status(std::string("a\0b.c.d", 7)), 401);
}

TEST_F(Tokens, that_were_verified_are_remembered_until_they_expire) {
  json claims = good();
  claims["exp"] = seconds_from_now(-4);  // a second is left of the leeway
  const std::string token = issuer_.key().token(claims);
  EXPECT_EQ(status(token), 200);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (status(token) == 200 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(status(token), 401);
}

/// Damage to good tokens: never accepted unless the text that was signed is the same; never a
/// crash.
TEST_F(Tokens, that_are_damaged_are_never_accepted_as_others) {
  const char* rounds = std::getenv("HOLDFAST_FUZZ_ITERATIONS");
  std::mt19937 random(20261123);
  const std::string good_token = issuer_.key().token(good());
  const std::string alphabet = "ABCabc019-_.=+/\\\"{}[]:, \n\x01\x7f\xff";
  for (int left = rounds != nullptr ? std::atoi(rounds) : 20000; left > 0; --left) {
    std::string token = good_token;
    // Half of the time the inner text is damaged and encoded again, so that parsers see it.
    if (random() % 2 == 0) {
      std::string header = json{{"alg", "RS256"}, {"kid", "key-1"}, {"typ", "JWT"}}.dump();
      std::string payload = good().dump();
      std::string& hurt = random() % 2 == 0 ? header : payload;
      for (auto each = 1 + random() % 3; each > 0 && !token.empty(); --each) {
        hurt[random() % hurt.size()] = static_cast<char>(random());
      }
      token = base64url(header) + "." + base64url(payload) + good_token.substr(token.rfind('.'));
    } else {
      for (auto each = 1 + random() % 3; each > 0 && !token.empty(); --each) {
        const std::size_t at = random() % token.size();
        switch (random() % 4) {
          case 0:
            token[at] = alphabet[random() % alphabet.size()];
            break;
          case 1:
            token.erase(at, 1 + random() % 20);
            break;
          case 2:
            token.insert(at, 1, alphabet[random() % alphabet.size()]);
            break;
          default:
            token.resize(at + 1);
        }
      }
    }
    if (token == good_token) continue;
    EXPECT_EQ(status(token), 401) << token;
  }
}

}  // namespace
}  // namespace reference::auth
