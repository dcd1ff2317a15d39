#pragma once

// Fast digests (XXH3). Not for secrecy: where somebody could profit from a collision, they are
// keyed.

#include "base/bytes.h"
#include "base/seal.h"

namespace holdfast::base {

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  bool operator==(const Hash128&) const = default;
  auto operator<=>(const Hash128&) const = default;
};

/// XXH3 64 and 128 of bytes, under a secret that is derived from a key: who does not hold the key
/// cannot make two pages that hash alike.
class KeyedHash {
 public:
  explicit KeyedHash(const Secret& key);
  std::uint64_t hash64(View bytes) const;
  Hash128 hash128(View bytes) const;

 private:
  Bytes secret_;
};

/// XXH3-128 without a key: against accidents only.
Hash128 hash128(View bytes);

}  // namespace holdfast::base
