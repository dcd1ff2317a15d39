#pragma once

// An issuer of session tokens for tests: RSA keys, tokens of both claim versions, and its JWKS over
// HTTP, answering or not. It signs by OpenSSL alone, so that what verifies is not what made them.

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace reference::tests {

inline std::string base64url(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  while (text.ends_with('=')) text.pop_back();
  for (char& each : text) each = each == '+' ? '-' : each == '/' ? '_' : each;
  return text;
}

/// A private RSA key with a kid.
class SigningKey {
 public:
  explicit SigningKey(std::string kid, unsigned bits = 2048)
      : kid_(std::move(kid)), key_(EVP_RSA_gen(bits), EVP_PKEY_free) {}

  const std::string& kid() const { return kid_; }

  nlohmann::json jwk() const {
    return {{"kty", "RSA"},
            {"use", "sig"},
            {"alg", "RS256"},
            {"kid", kid_},
            {"n", base64url(number(OSSL_PKEY_PARAM_RSA_N))},
            {"e", base64url(number(OSSL_PKEY_PARAM_RSA_E))}};
  }

  /// The public key as PEM, the classic secret of key confusion.
  std::string pem() const {
    const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
    PEM_write_bio_PUBKEY(out.get(), key_.get());
    char* data = nullptr;
    const long length = BIO_get_mem_data(out.get(), &data);
    return std::string(data, static_cast<std::size_t>(length));
  }

  std::string signature(std::string_view text) const {
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                          EVP_MD_CTX_free);
    std::string bytes(1024, '\0');
    std::size_t length = bytes.size();
    if (EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) != 1 ||
        EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(bytes.data()), &length,
                       reinterpret_cast<const unsigned char*>(text.data()), text.size()) != 1) {
      throw std::runtime_error("could not sign");
    }
    bytes.resize(length);
    return bytes;
  }

  /// A token with this header and payload, byte for byte, signed by RS256 whatever they say.
  std::string token(const std::string& header, const std::string& payload) const {
    const std::string text = base64url(header) + "." + base64url(payload);
    return text + "." + base64url(signature(text));
  }
  std::string token(const nlohmann::json& claims) const {
    const nlohmann::json header = {{"alg", "RS256"}, {"kid", kid_}, {"typ", "JWT"}};
    return token(header.dump(), claims.dump());
  }

 private:
  std::string number(const char* name) const {
    BIGNUM* value = nullptr;
    EVP_PKEY_get_bn_param(key_.get(), name, &value);
    std::string bytes(static_cast<std::size_t>(BN_num_bytes(value)), '\0');
    BN_bn2bin(value, reinterpret_cast<unsigned char*>(bytes.data()));
    BN_free(value);
    return bytes;
  }

  std::string kid_;
  std::shared_ptr<EVP_PKEY> key_;
};

inline std::string hmac_token(const std::string& header, const std::string& payload,
                              const std::string& secret) {
  const std::string text = base64url(header) + "." + base64url(payload);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac, &length);
  return text + "." + base64url({reinterpret_cast<const char*>(mac), length});
}

inline std::int64_t seconds_from_now(std::int64_t seconds) {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
             .count() +
         seconds;
}

/// Serves `GET /.well-known/jwks.json` on a port of its own, in whichever mode is set.
class Issuer {
 public:
  enum class Mode {
    answering,
    refusing,   // nobody listens
    hanging,    // accepts, and never says a word
    erroneous,  // 500
  };
  static constexpr const char* party = "https://app.example.com";

  Issuer() : keys_{SigningKey("key-1")} {
    listen();
    thread_ = std::thread([this] { serve(); });
  }
  ~Issuer() {
    stopping_ = true;
    thread_.join();
    close_all();
  }
  Issuer(const Issuer&) = delete;
  Issuer& operator=(const Issuer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::string jwks_url() const { return url() + "/.well-known/jwks.json"; }
  const SigningKey& key() const { return keys_.front(); }
  /// How often it was asked, answered or not.
  int requests() const { return requests_; }

  void set(Mode mode) {
    const std::lock_guard lock(mutex_);
    if (mode == mode_) return;
    close_all();
    mode_ = mode;
    if (mode != Mode::refusing) listen();
  }
  /// What it publishes from now on; the first signs.
  void publish(std::vector<SigningKey> keys) {
    const std::lock_guard lock(mutex_);
    keys_ = std::move(keys);
    document_.clear();
  }
  /// Publishes this text instead of its keys.
  void publish_text(std::string document) {
    const std::lock_guard lock(mutex_);
    document_ = std::move(document);
  }

  /// Claims that are good for a minute, of version 2.
  nlohmann::json claims(const std::string& organisation, const std::string& role,
                        const std::string& user = "user_1") const {
    nlohmann::json claims = base_claims(user);
    claims["v"] = 2;
    claims["sts"] = "active";
    claims["o"] = {{"id", organisation}, {"slg", "an-organisation"}, {"rol", role}};
    return claims;
  }
  nlohmann::json claims_v1(const std::string& organisation, const std::string& role,
                           const std::string& user = "user_1") const {
    nlohmann::json claims = base_claims(user);
    claims["org_id"] = organisation;
    claims["org_role"] = "org:" + role;
    claims["org_slug"] = "an-organisation";
    return claims;
  }
  /// A token of version 2, good for an hour (so that no test outlives it).
  std::string token(const std::string& organisation, const std::string& role,
                    const std::string& user = "user_1") const {
    nlohmann::json long_lived = claims(organisation, role, user);
    long_lived["exp"] = seconds_from_now(3600);
    return key().token(long_lived);
  }

 private:
  nlohmann::json base_claims(const std::string& user) const {
    return {{"iss", url()},
            {"sub", user},
            {"sid", "sess_1"},
            {"azp", party},
            {"iat", seconds_from_now(-1)},
            {"nbf", seconds_from_now(-10)},
            {"exp", seconds_from_now(60)}};
  }

  void listen() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int yes = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port_);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_, 64) != 0) {
      throw std::runtime_error("the issuer could not listen");
    }
    socklen_t length = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
  }

  void close_all() {
    for (const int connection : held_) ::close(connection);
    held_.clear();
    if (listener_ >= 0) ::close(listener_);
    listener_ = -1;
  }

  void serve() {
    while (!stopping_) {
      int connection = -1;
      {
        const std::lock_guard lock(mutex_);
        if (listener_ >= 0) connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (connection >= 0 && mode_ == Mode::hanging) {
          ++requests_;
          held_.push_back(connection);
          continue;
        }
      }
      if (connection < 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the pace of a poll
        continue;
      }
      answer(connection);
      ::close(connection);
    }
  }

  void answer(int connection) {
    std::string request;
    char piece[2048];
    pollfd readable{connection, POLLIN, 0};
    while (request.find("\r\n\r\n") == std::string::npos && ::poll(&readable, 1, 1000) == 1) {
      const ssize_t count = ::read(connection, piece, sizeof piece);
      if (count <= 0) return;
      request.append(piece, static_cast<std::size_t>(count));
    }
    ++requests_;
    std::string status = "200 OK";
    std::string body;
    {
      const std::lock_guard lock(mutex_);
      if (mode_ == Mode::erroneous) status = "500 Internal Server Error";
      if (!request.starts_with("GET /.well-known/jwks.json ")) status = "404 Not Found";
      body = document_.empty() ? jwks().dump() : document_;
    }
    const std::string head =
        "HTTP/1.1 " + status +
        "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\nConnection: close\r\n\r\n";
    send_all(connection, head + body);
  }

  static void send_all(int connection, std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  nlohmann::json jwks() const {
    nlohmann::json document = {{"keys", nlohmann::json::array()}};
    for (const SigningKey& key : keys_) document["keys"].push_back(key.jwk());
    return document;
  }

  std::mutex mutex_;
  Mode mode_ = Mode::answering;
  std::vector<SigningKey> keys_;
  std::string document_;
  std::vector<int> held_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<int> requests_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace reference::tests
