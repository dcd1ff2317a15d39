#pragma once

// Verifies session tokens: JWS compact serialisation, RS256 and nothing else.
//
// The algorithm is looked at before any key is; the key is the issuer's of that kid, never one that
// the token brings (jwk, jku, x5c and x5u are not read). A header with a name twice, with "crit",
// or of another type than JWT is refused, and so is a token above 8 KiB.
//
// A token that was found good is remembered by its SHA-256 until it expires, as long as its key is
// still the issuer's: the second time costs a hash. At most `most_remembered` are.

#include <array>
#include <mutex>
#include <unordered_map>

#include "auth/claims.h"
#include "auth/jwks_cache.h"
#include "auth/verifier.h"

namespace reference::auth {

class TokenVerifier : public Verifier {
 public:
  TokenVerifier(ExpectedClaims expected, JwksOptions keys);
  Principal verify(std::string_view bearer_token) override;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct FirstBytes {
    std::size_t operator()(const Digest& digest) const;
  };
  struct Remembered {
    Accepted accepted;
    std::shared_ptr<const Key> key;
  };
  static constexpr std::size_t most_remembered = 10000;

  std::optional<Principal> recall(const Digest& digest);
  void remember(const Digest& digest, Remembered remembered);

  ExpectedClaims expected_;
  JwksCache keys_;
  std::mutex mutex_;
  std::unordered_map<Digest, Remembered, FirstBytes> remembered_;
};

}  // namespace reference::auth
