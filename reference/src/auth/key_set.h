#pragma once

// The public keys of an issuer, from its JWKS document (RFC 7517).
//
// Only keys that may verify RS256 get in: kty RSA, use absent or "sig", alg absent or "RS256",
// key_ops absent or with "verify", 2048 to 8192 bits, an odd exponent of at least 3, and a kid.
// What else the document holds is passed over, private parts included. A kid that two different
// keys bear names neither. A KeySet does not change once it is made; threads share it.

#include <cjose/jwk.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace reference::auth {

struct Key {
  std::string id;
  /// Modulus and exponent as they were written: what makes it this key and not another.
  std::string material;
  std::shared_ptr<cjose_jwk_t> jwk;
};

using KeySet = std::map<std::string, std::shared_ptr<const Key>, std::less<>>;

/// The usable keys by kid. Throws std::runtime_error, with a reason, unless it is a JWKS document
/// with at least one usable key.
KeySet read_key_set(std::string_view document);

}  // namespace reference::auth
