#pragma once

// Keys, sealing and digests, all by OpenSSL 3.
//
// A Secret is 32 bytes that are wiped when it goes. Sealing is AES-256-GCM (NIST SP 800-38D):
// whoever opens with another key, another nonce or other associated data, or a changed byte, gets
// nothing. The caller owes one promise: never the same key and nonce twice (TRAPS EK9).

#include <array>
#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace holdfast::base {

constexpr std::size_t seal_tag_size = 16;

class Secret {
 public:
  Secret() = default;
  /// Takes exactly 32 bytes; throws Error(key) otherwise.
  explicit Secret(View bytes);
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret();
  View bytes() const { return bytes_; }

 private:
  std::array<std::uint8_t, 32> bytes_{};
};

Bytes random_bytes(std::size_t count);
Secret random_secret();

/// HKDF-SHA256 (RFC 5869) of `key`, bound to `purpose`.
Secret derive(const Secret& key, View salt, std::string_view purpose);
/// scrypt (RFC 7914) with r = 8, p = 1 and N = 2^`log_n`.
Secret stretch(std::string_view passphrase, View salt, unsigned log_n);

std::array<std::uint8_t, 32> sha256(View bytes);
std::array<std::uint8_t, 32> hmac_sha256(const Secret& key, View bytes);
/// The same with a key of any length, as protocols of others have them.
std::array<std::uint8_t, 32> hmac_sha256(View key, View bytes);
/// SHA-256 of bytes that come piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(View bytes);
  /// The digest of all that was added; nothing can be added any more.
  std::array<std::uint8_t, 32> finish();

 private:
  void* context_;
};
/// Equality in a time that does not depend on where they differ.
bool same_bytes(View a, View b);

/// AES-256-GCM under one key. Keeps its cipher contexts; belongs to one thread.
class Sealer {
 public:
  explicit Sealer(const Secret& key);
  ~Sealer();
  Sealer(Sealer&& other) noexcept;
  Sealer& operator=(Sealer&&) = delete;
  Sealer(const Sealer&) = delete;
  Sealer& operator=(const Sealer&) = delete;

  /// Encrypts `bytes` in place and writes the tag. `number` is the nonce.
  void seal(std::uint64_t number, View associated, MutableView bytes, MutableView tag);
  /// Decrypts in place; false if anything is not as it was sealed (the bytes are then worthless).
  [[nodiscard]] bool open(std::uint64_t number, View associated, MutableView bytes, View tag);

 private:
  void* encrypt_ = nullptr;
  void* decrypt_ = nullptr;
};

}  // namespace holdfast::base
