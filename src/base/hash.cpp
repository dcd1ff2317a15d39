#include "base/hash.h"

#include <xxhash.h>

#include "base/error.h"

namespace holdfast::base {

KeyedHash::KeyedHash(const Secret& key) {
  while (secret_.size() < XXH3_SECRET_SIZE_MIN + 56) {
    const Secret part = derive(key, {}, fmt::format("xxh3 secret {}", secret_.size() / 32));
    secret_.insert(secret_.end(), part.bytes().begin(), part.bytes().end());
  }
}

std::uint64_t KeyedHash::hash64(View bytes) const {
  return XXH3_64bits_withSecret(bytes.data(), bytes.size(), secret_.data(), secret_.size());
}

Hash128 KeyedHash::hash128(View bytes) const {
  const XXH128_hash_t hash =
      XXH3_128bits_withSecret(bytes.data(), bytes.size(), secret_.data(), secret_.size());
  return {hash.low64, hash.high64};
}

Hash128 hash128(View bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

}  // namespace holdfast::base
