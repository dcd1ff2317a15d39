#include "base/signature.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>
#include <memory>

#include "base/error.h"
#include "base/ownership.h"
#include "base/seal.h"

namespace holdfast::base {

namespace {

constexpr std::size_t key_size = 32;
constexpr std::size_t signature_size = 64;

using Key = std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)>;
using Bio = std::unique_ptr<BIO, int (*)(BIO*)>;
using Context = std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)>;

void check(bool done, const char* what) {
  if (!done) fail(Code::internal, "OpenSSL could not {}", what);
}

Bio memory() {
  Bio bio(BIO_new(BIO_s_mem()), BIO_free);
  check(bio != nullptr, "make a buffer");
  return bio;
}

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

Bio reading(std::string_view text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free};
}

Key private_key(View raw) {
  Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, raw.data(), raw.size()),
          EVP_PKEY_free);
  check(key != nullptr, "use a signing key");
  return key;
}

[[noreturn]] void refuse(std::string_view where, std::string_view kind) {
  fail(Code::key, "cannot use {}: it is not an Ed25519 {} key in PEM form", where, kind);
}

}  // namespace

VerifyingKey::VerifyingKey(std::string_view pem, std::string_view where) : raw_(key_size) {
  const Key key(PEM_read_bio_PUBKEY(reading(pem).get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
  std::size_t size = raw_.size();
  if (!key || EVP_PKEY_get_raw_public_key(key.get(), raw_.data(), &size) != 1 || size != key_size) {
    refuse(where, "public");
  }
}

bool VerifyingKey::verifies(View message, View signature) const {
  const Key key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw_.data(), raw_.size()),
                EVP_PKEY_free);
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  check(key && context, "use a public key");
  return signature.size() == signature_size &&
         EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(),
                          message.size()) == 1;
}

std::string VerifyingKey::fingerprint() const {
  return to_hex(sha256(raw_)).substr(0, 16);
}

SigningKey::SigningKey(View raw) : raw_(copy(raw)) {}

SigningKey SigningKey::generate() {
  return SigningKey(random_bytes(key_size));
}

SigningKey::SigningKey(std::string_view pem, std::string_view where) : raw_(key_size) {
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  const Key key(PEM_read_bio_PrivateKey(reading(pem).get(), nullptr, no_passphrase, nullptr),
                EVP_PKEY_free);
  std::size_t size = raw_.size();
  if (!key || EVP_PKEY_get_raw_private_key(key.get(), raw_.data(), &size) != 1 ||
      size != key_size) {
    refuse(where, "private");
  }
}

Bytes SigningKey::sign(View message) const {
  const Key key = private_key(raw_);
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  Bytes signature(signature_size);
  std::size_t size = signature.size();
  check(context && EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
            EVP_DigestSign(context.get(), signature.data(), &size, message.data(),
                           message.size()) == 1,
        "sign");
  return signature;
}

std::string SigningKey::private_pem() const {
  const Bio bio = memory();
  check(PEM_write_bio_PrivateKey(bio.get(), private_key(raw_).get(), nullptr, nullptr, 0, nullptr,
                                 nullptr) == 1,
        "write a signing key");
  return text_of(bio);
}

std::string SigningKey::public_pem() const {
  const Bio bio = memory();
  check(PEM_write_bio_PUBKEY(bio.get(), private_key(raw_).get()) == 1, "write a public key");
  return text_of(bio);
}

SigningKey signing_key_in(const fs::path& file) {
  if (const auto bytes = read_file(file))
    return {text(*bytes), fmt::format("\"{}\"", file.string())};
  SigningKey key = SigningKey::generate();
  make_directories_for_owner(file.parent_path(), 0700);
  replace_file(file, view(key.private_pem()), 0600);
  give_to_owner_of_directory(file);
  return key;
}

}  // namespace holdfast::base
