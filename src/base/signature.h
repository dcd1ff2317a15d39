#pragma once

// Signatures that anybody can check who has the public key (Ed25519, RFC 8032, by OpenSSL).
//
// Keys are kept as OpenSSL itself writes them (PEM), so that `openssl pkeyutl` can check the same.
// Signing the same bytes again gives the same signature.

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/file.h"

namespace holdfast::base {

/// What checks signatures.
class VerifyingKey {
 public:
  /// Throws Error(key) unless `pem` is an Ed25519 public key; `where` says whose.
  VerifyingKey(std::string_view pem, std::string_view where);
  bool verifies(View message, View signature) const;
  /// The first 16 hexadecimal digits of the SHA-256 of the key: for people to compare.
  std::string fingerprint() const;
  bool operator==(const VerifyingKey&) const = default;

 private:
  Bytes raw_;
};

/// What makes them. Whoever holds it can sign.
class SigningKey {
 public:
  static SigningKey generate();
  /// Throws Error(key) unless `pem` is an Ed25519 private key.
  SigningKey(std::string_view pem, std::string_view where);

  Bytes sign(View message) const;
  std::string private_pem() const;
  std::string public_pem() const;

 private:
  explicit SigningKey(View raw);
  Bytes raw_;
};

/// The key in a file; a new one, written there with mode 0600, if there is no such file.
SigningKey signing_key_in(const fs::path& file);

}  // namespace holdfast::base
