#include "base/seal.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"

namespace holdfast::base {

namespace {

void check(int result, const char* what) {
  if (result != 1) fail(Code::internal, "OpenSSL could not {}", what);
}

OSSL_PARAM octets(const char* name, View bytes) {
  // OSSL_PARAM takes no pointer to const, but does not write through this one. It takes a null
  // pointer for a missing value, and not for an empty one.
  static std::uint8_t none = 0;
  auto* data = bytes.empty() ? &none : const_cast<std::uint8_t*>(bytes.data());
  return OSSL_PARAM_construct_octet_string(name, data, bytes.size());
}

void run_kdf(const char* algorithm, OSSL_PARAM* params, MutableView out) {
  const std::unique_ptr<EVP_KDF, void (*)(EVP_KDF*)> kdf(EVP_KDF_fetch(nullptr, algorithm, nullptr),
                                                         EVP_KDF_free);
  if (!kdf) fail(Code::internal, "OpenSSL does not offer {}", algorithm);
  const std::unique_ptr<EVP_KDF_CTX, void (*)(EVP_KDF_CTX*)> context(EVP_KDF_CTX_new(kdf.get()),
                                                                     EVP_KDF_CTX_free);
  check(EVP_KDF_derive(context.get(), out.data(), out.size(), params), "derive a key");
}

EVP_CIPHER_CTX* context_of(void* pointer) {
  return static_cast<EVP_CIPHER_CTX*>(pointer);
}

std::array<std::uint8_t, 12> nonce_of(std::uint64_t number) {
  std::array<std::uint8_t, 12> nonce{};
  for (std::size_t i = 0; i < 8; ++i) {
    nonce[11 - i] = static_cast<std::uint8_t>(number >> (8 * i));
  }
  return nonce;
}

}  // namespace

Secret::Secret(View bytes) {
  if (bytes.size() != bytes_.size()) {
    fail(Code::key, "a key must have {} bytes, but this one has {}", bytes_.size(), bytes.size());
  }
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

Secret::~Secret() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
}

Bytes random_bytes(std::size_t count) {
  Bytes bytes(count);
  check(RAND_bytes(bytes.data(), static_cast<int>(count)), "get random bytes");
  return bytes;
}

Secret random_secret() {
  return Secret(random_bytes(32));
}

Secret derive(const Secret& key, View salt, std::string_view purpose) {
  std::string digest = "SHA256";
  std::array<OSSL_PARAM, 5> params = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      octets(OSSL_KDF_PARAM_KEY, key.bytes()), octets(OSSL_KDF_PARAM_SALT, salt),
      octets(OSSL_KDF_PARAM_INFO, view(purpose)), OSSL_PARAM_construct_end()};
  std::array<std::uint8_t, 32> out{};
  run_kdf("HKDF", params.data(), out);
  Secret derived(out);
  OPENSSL_cleanse(out.data(), out.size());
  return derived;
}

Secret stretch(std::string_view passphrase, View salt, unsigned log_n) {
  std::uint64_t n = std::uint64_t{1} << log_n;
  std::uint32_t r = 8;
  std::uint32_t p = 1;
  // OpenSSL refuses more than 32 MiB unless told; N = 2^15 needs 32 MiB and a little.
  std::uint64_t memory = std::uint64_t{160} * r * n;
  std::array<OSSL_PARAM, 7> params = {
      octets(OSSL_KDF_PARAM_PASSWORD, view(passphrase)),
      octets(OSSL_KDF_PARAM_SALT, salt),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory),
      OSSL_PARAM_construct_end()};
  std::array<std::uint8_t, 32> out{};
  run_kdf("SCRYPT", params.data(), out);
  Secret stretched(out);
  OPENSSL_cleanse(out.data(), out.size());
  return stretched;
}

std::array<std::uint8_t, 32> sha256(View bytes) {
  std::array<std::uint8_t, 32> digest{};
  SHA256(bytes.data(), bytes.size(), digest.data());
  return digest;
}

std::array<std::uint8_t, 32> hmac_sha256(View key, View bytes) {
  std::array<std::uint8_t, 32> digest{};
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes.data(), bytes.size(),
       digest.data(), &size);
  return digest;
}

std::array<std::uint8_t, 32> hmac_sha256(const Secret& key, View bytes) {
  return hmac_sha256(key.bytes(), bytes);
}

namespace {

EVP_MD_CTX* digest_of(void* context) {
  return static_cast<EVP_MD_CTX*>(context);
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  check(EVP_DigestInit_ex(digest_of(context_), EVP_sha256(), nullptr), "set up SHA-256");
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(digest_of(context_));
}

void Sha256::add(View bytes) {
  check(EVP_DigestUpdate(digest_of(context_), bytes.data(), bytes.size()), "compute SHA-256");
}

std::array<std::uint8_t, 32> Sha256::finish() {
  std::array<std::uint8_t, 32> digest{};
  check(EVP_DigestFinal_ex(digest_of(context_), digest.data(), nullptr), "compute SHA-256");
  return digest;
}

bool same_bytes(View a, View b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Sealer::Sealer(const Secret& key) : encrypt_(EVP_CIPHER_CTX_new()), decrypt_(EVP_CIPHER_CTX_new()) {
  check(EVP_EncryptInit_ex(context_of(encrypt_), EVP_aes_256_gcm(), nullptr, key.bytes().data(),
                           nullptr),
        "set up AES-256-GCM");
  check(EVP_DecryptInit_ex(context_of(decrypt_), EVP_aes_256_gcm(), nullptr, key.bytes().data(),
                           nullptr),
        "set up AES-256-GCM");
}

Sealer::Sealer(Sealer&& other) noexcept
    : encrypt_(std::exchange(other.encrypt_, nullptr)),
      decrypt_(std::exchange(other.decrypt_, nullptr)) {}

Sealer::~Sealer() {
  EVP_CIPHER_CTX_free(context_of(encrypt_));
  EVP_CIPHER_CTX_free(context_of(decrypt_));
}

void Sealer::seal(std::uint64_t number, View associated, MutableView bytes, MutableView tag) {
  EVP_CIPHER_CTX* context = context_of(encrypt_);
  const auto nonce = nonce_of(number);
  int size = 0;
  check(EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()), "set a nonce");
  check(EVP_EncryptUpdate(context, nullptr, &size, associated.data(),
                          static_cast<int>(associated.size())),
        "encrypt");
  check(
      EVP_EncryptUpdate(context, bytes.data(), &size, bytes.data(), static_cast<int>(bytes.size())),
      "encrypt");
  check(EVP_EncryptFinal_ex(context, bytes.data() + size, &size), "encrypt");
  check(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, seal_tag_size, tag.data()),
        "make a tag");
}

bool Sealer::open(std::uint64_t number, View associated, MutableView bytes, View tag) {
  if (tag.size() != seal_tag_size) return false;
  EVP_CIPHER_CTX* context = context_of(decrypt_);
  const auto nonce = nonce_of(number);
  int size = 0;
  std::array<std::uint8_t, seal_tag_size> expected{};
  std::copy(tag.begin(), tag.end(), expected.begin());
  check(EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data()), "set a nonce");
  check(EVP_DecryptUpdate(context, nullptr, &size, associated.data(),
                          static_cast<int>(associated.size())),
        "decrypt");
  check(
      EVP_DecryptUpdate(context, bytes.data(), &size, bytes.data(), static_cast<int>(bytes.size())),
      "decrypt");
  check(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, seal_tag_size, expected.data()),
        "set a tag");
  return EVP_DecryptFinal_ex(context, bytes.data() + size, &size) == 1;
}

}  // namespace holdfast::base
