#include "auth/key_set.h"

#include <openssl/bn.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "auth/base64url.h"

namespace reference::auth {
namespace {

using nlohmann::json;

constexpr int least_bits = 2048;
constexpr int most_bits = 8192;

/// The text of a member; "" where there is none or it is no text.
std::string text_of(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool absent_or(const json& object, const char* name, const char* value) {
  return !object.contains(name) || text_of(object, name) == value;
}

bool may_verify(const json& key) {
  const auto operations = key.find("key_ops");
  return operations == key.end() ||
         (operations->is_array() &&
          std::find(operations->begin(), operations->end(), "verify") != operations->end());
}

using Number = std::unique_ptr<BIGNUM, decltype(&BN_free)>;

/// The number of a member in base64url; null if it is none.
Number number_of(const std::string& text) {
  const std::optional<std::string> bytes = decode_base64url(text);
  if (!bytes || bytes->empty() || bytes->size() > 2 * most_bits / 8) return {nullptr, BN_free};
  return {BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes->data()),
                    static_cast<int>(bytes->size()), nullptr),
          BN_free};
}

bool is_sound(const std::string& modulus, const std::string& exponent) {
  const Number n = number_of(modulus);
  const Number e = number_of(exponent);
  return n && e && BN_num_bits(n.get()) >= least_bits && BN_num_bits(n.get()) <= most_bits &&
         BN_is_odd(n.get()) && BN_is_odd(e.get()) && !BN_is_one(e.get()) &&
         BN_num_bits(e.get()) <= 64;
}

/// The key that an entry of the document describes; null if it is none for us.
std::shared_ptr<const Key> read_key(const json& entry) {
  if (!entry.is_object() || text_of(entry, "kty") != "RSA" || !absent_or(entry, "use", "sig") ||
      !absent_or(entry, "alg", "RS256") || !may_verify(entry)) {
    return nullptr;
  }
  const std::string id = text_of(entry, "kid");
  const std::string modulus = text_of(entry, "n");
  const std::string exponent = text_of(entry, "e");
  if (id.empty() || id.size() > 256 || !is_sound(modulus, exponent)) return nullptr;
  const std::string plain = json{{"kty", "RSA"}, {"n", modulus}, {"e", exponent}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
  cjose_jwk_t* jwk = cjose_jwk_import(plain.data(), plain.size(), nullptr);
  if (jwk == nullptr) return nullptr;
  return std::make_shared<const Key>(
      Key{id, modulus + "." + exponent, std::shared_ptr<cjose_jwk_t>(jwk, cjose_jwk_release)});
}

}  // namespace

KeySet read_key_set(std::string_view document) {
  const json parsed = json::parse(document, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("keys") || !parsed["keys"].is_array()) {
    throw std::runtime_error("it is not a JWKS document");
  }
  KeySet keys;
  std::set<std::string> ambiguous;
  for (const json& entry : parsed["keys"]) {
    std::shared_ptr<const Key> key = read_key(entry);
    if (!key) continue;
    const auto [at, is_new] = keys.emplace(key->id, key);
    if (!is_new && at->second->material != key->material) ambiguous.insert(key->id);
  }
  for (const std::string& id : ambiguous) keys.erase(id);
  if (keys.empty()) throw std::runtime_error("it holds no key that can verify RS256");
  return keys;
}

}  // namespace reference::auth
