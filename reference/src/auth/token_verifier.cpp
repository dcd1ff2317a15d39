#include "auth/token_verifier.h"

#include <cjose/header.h>
#include <cjose/jws.h>
#include <openssl/sha.h>

#include <cstring>
#include <set>

#include "auth/base64url.h"
#include "http/problem.h"

namespace reference::auth {
namespace {

using nlohmann::json;
using Jws = std::unique_ptr<cjose_jws_t, decltype(&cjose_jws_release)>;

constexpr std::size_t longest_token = 8192;
// Deeper nesting has no meaning in a token; parsers need not be tried by it.
constexpr int deepest = 16;

[[noreturn]] void refuse(const std::string& why) {
  throw http::Problem{401, "invalid_token", "the token is not accepted: " + why};
}

/// An object without a name twice on its top level, so that no two readers can disagree on it.
json read_object(std::string_view encoded, const char* what) {
  const std::optional<std::string> text = decode_base64url(encoded);
  if (!text) refuse(std::string("its ") + what + " is malformed");
  std::set<std::string> names;
  bool is_sound = true;
  const auto look = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      is_sound = names.insert(parsed.get<std::string>()).second && is_sound;
    }
    if (depth > deepest) is_sound = false;
    return is_sound;
  };
  json object = json::parse(*text, look, false);
  if (!is_sound || !object.is_object()) refuse(std::string("its ") + what + " is malformed");
  return object;
}

/// The kid, once the header is one that can be accepted at all.
std::string check_header(std::string_view encoded) {
  const json header = read_object(encoded, "header");
  const auto is = [&](const char* name, const char* value) {
    const auto found = header.find(name);
    return found != header.end() && found->is_string() && *found == value;
  };
  if (!is("alg", "RS256")) refuse("its algorithm is not RS256");
  if (header.contains("typ") && !is("typ", "JWT")) refuse("it is not a session token");
  if (header.contains("crit")) refuse("it has critical extensions");
  const auto kid = header.find("kid");
  if (kid == header.end() || !kid->is_string() || kid->get_ref<const std::string&>().empty()) {
    refuse("it names no key");
  }
  return kid->get<std::string>();
}

void check_signature(std::string_view token, const Key& key) {
  const Jws jws(cjose_jws_import(token.data(), token.size(), nullptr), cjose_jws_release);
  if (!jws) refuse("it is malformed");
  // cjose chooses by what it read itself: it must have read the same.
  const char* algorithm =
      cjose_header_get(cjose_jws_get_protected(jws.get()), CJOSE_HDR_ALG, nullptr);
  if (algorithm == nullptr || std::strcmp(algorithm, CJOSE_HDR_ALG_RS256) != 0) {
    refuse("its algorithm is not RS256");
  }
  if (!cjose_jws_verify(jws.get(), key.jwk.get(), nullptr)) refuse("its signature is not good");
}

}  // namespace

TokenVerifier::TokenVerifier(ExpectedClaims expected, JwksOptions keys)
    : expected_(std::move(expected)), keys_(std::move(keys)) {}

Principal TokenVerifier::verify(std::string_view token) {
  if (token.size() > longest_token) refuse("it is too long");
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  if (keys_.is_cached()) {
    if (std::optional<Principal> principal = recall(digest)) return *std::move(principal);
  }
  const std::size_t first = token.find('.');
  const std::size_t second = first == token.npos ? first : token.find('.', first + 1);
  if (second == token.npos || token.find('.', second + 1) != token.npos) {
    refuse("it has not three parts");
  }
  const std::string_view payload = token.substr(first + 1, second - first - 1);
  const std::string kid = check_header(token.substr(0, first));
  // cjose 0.6 ends the process (an assertion) on base64 of an impossible length.
  if (!decode_base64url(payload) || !decode_base64url(token.substr(second + 1))) {
    refuse("it is malformed");
  }
  const std::shared_ptr<const Key> key = keys_.find(kid);
  if (!key) refuse("its key is not one of the issuer's");
  check_signature(token, *key);
  const json claims = read_object(payload, "payload");
  Accepted accepted = accept(claims, expected_, std::chrono::system_clock::now());
  if (keys_.is_cached()) remember(digest, {accepted, key});
  return std::move(accepted.principal);
}

std::optional<Principal> TokenVerifier::recall(const Digest& digest) {
  std::unique_lock lock(mutex_);
  const auto found = remembered_.find(digest);
  if (found == remembered_.end()) return std::nullopt;
  const Remembered remembered = found->second;
  if (std::chrono::system_clock::now() >= remembered.accepted.until) {
    remembered_.erase(found);
    return std::nullopt;
  }
  lock.unlock();
  const std::shared_ptr<const Key> key = keys_.known(remembered.key->id);
  if (!key || key->material != remembered.key->material) return std::nullopt;
  return remembered.accepted.principal;
}

void TokenVerifier::remember(const Digest& digest, Remembered remembered) {
  const auto now = std::chrono::system_clock::now();
  const std::lock_guard lock(mutex_);
  if (remembered_.size() >= most_remembered) {
    std::erase_if(remembered_, [&](const auto& each) { return now >= each.second.accepted.until; });
    if (remembered_.size() >= most_remembered) remembered_.clear();
  }
  remembered_.insert_or_assign(digest, std::move(remembered));
}

std::size_t TokenVerifier::FirstBytes::operator()(const Digest& digest) const {
  std::size_t hash = 0;
  std::memcpy(&hash, digest.data(), sizeof hash);
  return hash;
}

}  // namespace reference::auth
