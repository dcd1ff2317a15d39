// Whatever bytes a client sends: no crash, no answer that is not HTTP, and the next client is
// served.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "http/problem.h"
#include "http/server.h"

namespace reference::http {
namespace {

class EveryoneIsSomebody : public auth::Verifier {
 public:
  auth::Principal verify(std::string_view token) override {
    if (token != "good") throw Problem(401, "bad_token", "cannot accept this token");
    return {"user_1", "org_1", auth::Role::editor};
  }
};

/// A server with a route of each kind, as long as it is there.
class Running {
 public:
  Running() : router_(verifier_) {
    const auto echo = [](Request& request, const auth::Principal&) {
      Response response;
      response.body = request.body == nullptr ? "[]" : request.json(1000).dump();
      return response;
    };
    router_.add("GET", "/things/{id}", auth::Role::viewer, echo);
    router_.add("POST", "/things", auth::Role::editor, echo);
    router_.add("PATCH", "/things/{id}", auth::Role::editor, echo);
    router_.add("DELETE", "/things/{id}", auth::Role::admin, echo);
    router_.add("GET", "/stream", auth::Role::viewer, [](Request&, const auth::Principal&) {
      Response response;
      response.stream = [](const Write& write) {
        for (int at = 0; at < 10; ++at) write("piece\n");
      };
      return response;
    });
    router_.add_open("GET", "/health", [](Request&) { return Response(); });
    ServerOptions options;
    options.threads = 4;
    options.waiting = 8;
    server_ = std::make_unique<Server>(router_, options);
    thread_ = std::thread([this] { server_->serve(); });
  }
  ~Running() {
    server_->stop();
    thread_.join();
  }

  int port() const { return server_->port(); }
  /// Sends bytes, then nothing more; what comes back until the server closes.
  std::string talk(const std::string& bytes) const {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(server_->port()));
    const timeval limit{20, 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::string answer;
    if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ::shutdown(socket, SHUT_WR);
      char piece[4096];
      for (ssize_t count = 0; (count = ::recv(socket, piece, sizeof piece, 0)) > 0;) {
        answer.append(piece, static_cast<std::size_t>(count));
      }
    }
    ::close(socket);
    return answer;
  }

 private:
  EveryoneIsSomebody verifier_;
  Router router_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

const std::vector<std::string>& examples() {
  static const std::string token = "Authorization: Bearer good\r\n";
  static const std::string json = "Content-Type: application/json\r\n";
  static const std::vector<std::string> all = {
      "GET /things/7?a=b&c=%20d HTTP/1.1\r\nHost: x\r\n" + token + "\r\n",
      "HEAD /things/7 HTTP/1.0\r\nConnection: Keep-Alive\r\n" + token + "\r\n",
      "POST /things HTTP/1.1\r\nHost: x\r\n" + token + json +
          "Content-Length: 13\r\n\r\n{\"a\":[1,2.5]}",
      "POST /things HTTP/1.1\r\nHost: x\r\n" + token + json +
          "Transfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\n2;x=y\r\n]\n\r\n0\r\n\r\n",
      "PATCH /things/7 HTTP/1.1\r\nHost: x\r\n" + token + json +
          "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
      "DELETE /things/7 HTTP/1.1\r\nHost: x\r\n" + token +
          "\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET /stream HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\n" + token + "\r\n",
      "POST /things HTTP/1.1\r\nHost: x\r\n" + token + json +
          "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x01",
      "GET /health HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,2-3,-4,5-\r\n\r\n",
      "POST /things HTTP/1.1\r\nHost: x\r\n" + token +
          "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5\r\n\r\n--b--",
      "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
  };
  return all;
}

class Fuzzer {
 public:
  explicit Fuzzer(std::uint64_t seed) : random_(seed) {}

  std::string bytes() {
    const std::string& example = examples()[below(examples().size())];
    if (below(10) == 0) return noise(below(300));
    std::string text = example;
    for (std::size_t changes = below(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }
  std::string noise(std::size_t count) {
    std::string text(count, '\0');
    for (char& each : text) each = static_cast<char>(random_());
    return text;
  }
  void change(std::string& text) {
    const std::size_t at = below(text.size() + 1);
    const std::size_t count = std::min(below(20), text.size() - at);
    switch (below(7)) {
      case 0:
        text.insert(at, noise(1 + below(4)));
        break;
      case 1:
        text.erase(at, count);
        break;
      case 2:
        text.insert(at, text.substr(at, count));
        break;
      case 3:
        text.resize(at);
        break;
      case 4:
        text.insert(at, std::string(below(20000), static_cast<char>(random_())));
        break;
      case 5:
        text.insert(at, std::vector<std::string>{"\r\n", "\r\n\r\n", "%00", "%", ": ", "{",
                                                 "99999999999999999999", "-1"}[below(8)]);
        break;
      default:
        text += examples()[below(examples().size())];
        break;
    }
  }
  std::mt19937_64 random_;
};

TEST(ServerFuzz, serves_the_examples) {
  const Running server;
  const std::vector<std::string> expected = {"200", "200", "200", "200", "100", "403",
                                             "200", "400", "200", "415", "404"};
  for (std::size_t at = 0; at < examples().size(); ++at) {
    const std::string answer = server.talk(examples()[at]);
    EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 " + expected[at]) << examples()[at] << answer;
  }
}

std::string gzip(std::string text) {
  z_stream zlib{};
  EXPECT_EQ(deflateInit2(&zlib, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&zlib, text.size()), '\0');
  zlib.next_in = reinterpret_cast<Bytef*>(text.data());
  zlib.avail_in = static_cast<uInt>(text.size());
  zlib.next_out = reinterpret_cast<Bytef*>(packed.data());
  zlib.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&zlib, Z_FINISH), Z_STREAM_END);
  packed.resize(zlib.total_out);
  deflateEnd(&zlib);
  return packed;
}

/// A request that posts a body, said to be of this size and with these headers.
std::string post(const std::string& body, const std::string& headers, std::size_t size) {
  return "POST /things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
         "Content-Type: application/json\r\n" +
         headers + "Content-Length: " + std::to_string(size) + "\r\n\r\n" + body;
}

std::string post(const std::string& body, const std::string& headers) {
  return post(body, headers, body.size());
}

TEST(ServerFuzz, refuses_a_request_that_can_be_read_in_two_ways) {
  const Running server;
  const std::string line = "GET /health HTTP/1.1\r\n";
  const std::string host = "Host: x\r\n";
  const std::string chunked =
      "POST /things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
      "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_TRUE(server.talk(line + host + "\r\n").starts_with("HTTP/1.1 200 "));
  EXPECT_TRUE(server.talk(chunked + "2\r\n[]\r\n0\r\n\r\n").starts_with("HTTP/1.1 200 "));
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"no Host", line + "\r\n"},
      {"two Hosts", line + host + host + "\r\n"},
      {"two tokens", line + host + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"},
      {"a bare LF", "GET /health HTTP/1.1\nHost: x\n\n"},
      {"a bare LF in a header", line + "A: b\n" + host + "\r\n"},
      {"a bare CR", line + "A: b\rC: d\r\n" + host + "\r\n"},
      {"NUL", line + host + std::string("A: b\0c\r\n\r\n", 11)},
      {"a blank before the colon", line + host + "Transfer-Encoding : chunked\r\n\r\n"},
      {"a line that goes on", line + host + "A: b\r\n c\r\n\r\n"},
      {"no colon", line + host + "A\r\n\r\n"},
      {"chunks of HTTP/1.0", "POST /things HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {"a length in code", line + host + "Content-Length: %31\r\n\r\n"},
      {"a chunk longer than it says", chunked + "1\r\n[]\r\n0\r\n\r\n"},
      {"a chunk shorter than it says", chunked + "3\r\n[]\r\n0\r\n\r\n"},
      {"0x2", chunked + "0x2\r\n[]\r\n0\r\n\r\n"},
      {"-2", chunked + "-2\r\n[]\r\n0\r\n\r\n"},
      {"no size", chunked + "\r\n[]\r\n0\r\n\r\n"},
      {"a chunk with a bare LF", chunked + "2\n[]\r\n0\r\n\r\n"},
      {"a size beyond numbers", chunked + "10000000000000002\r\n[]\r\n0\r\n\r\n"},
      {"no last chunk", chunked + "2\r\n[]\r\n"},
      {"no end of chunks", chunked + "2\r\n[]\r\n0\r\n"},
  };
  for (const auto& [name, bytes] : wrong) {
    const std::string answer = server.talk(bytes + line + host + "\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << name << ": " << answer;
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << name << ": read on";
  }
  const std::string nine(9UL << 10, 'x');
  EXPECT_TRUE(server.talk(line + host + "A: " + nine + "\r\n\r\n").starts_with("HTTP/1.1 431 "));
}

TEST(ServerFuzz, takes_a_compressed_body_whole_or_not_at_all) {
  const Running server;
  const std::string zip = "Content-Encoding: gzip\r\n";
  const std::string packed = gzip("[1,2,3,\"" + std::string(500, 'x') + "\"]");
  const auto status = [&](const std::string& request) { return server.talk(request).substr(9, 3); };
  const std::string good = server.talk(post(packed, zip));
  EXPECT_TRUE(good.starts_with("HTTP/1.1 200 ")) << good;
  EXPECT_NE(good.find("[1,2,3,\"xxx"), std::string::npos) << good;
  EXPECT_EQ(status(post(gzip("[1,") + gzip("2]"), zip)), "200");
  for (std::size_t size = 1; size < packed.size(); ++size) {
    EXPECT_EQ(status(post(packed.substr(0, size), zip)), "400") << size;
  }
  EXPECT_EQ(status(post("\x1f\x8b", zip)), "400");
  EXPECT_EQ(status(post("[]", zip)), "400");
  EXPECT_EQ(status(post(gzip("[]") + "and more", zip)), "400");
  EXPECT_EQ(status(post(gzip(std::string(100000, ' ')), zip)), "413");
  for (const char* encoding : {"br", "deflate", "gzip, gzip", "x"}) {
    EXPECT_EQ(status(post("[]", std::string("Content-Encoding: ") + encoding + "\r\n")), "415");
  }
}

TEST(ServerFuzz, sends_the_whole_answer_once_whatever_range_is_asked_for) {
  const Running server;
  std::string ranges = "0-";
  for (int each = 0; each < 800; ++each) ranges += ",0-";
  for (const std::string& asked :
       {std::string("0-0"), std::string("-1"), ranges, ranges + ",5-3"}) {
    const std::string answer = server.talk(
        "GET /things/7 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nrange: bytes=" + asked +
        "\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer.substr(0, 200);
    EXPECT_TRUE(answer.ends_with("\r\n\r\n[]")) << answer.substr(0, 200);
    EXPECT_EQ(answer.find("Content-Range"), std::string::npos);
  }
}

TEST(ServerFuzz, does_not_listen_where_somebody_listens) {
  const Running server;
  EveryoneIsSomebody verifier;
  const Router router(verifier);
  ServerOptions options;
  options.port = server.port();
  EXPECT_THROW(Server(router, options), std::runtime_error);
}

TEST(ServerFuzz, survives_whatever_is_sent) {
  const Running server;
  const char* wanted = std::getenv("HOLDFAST_FUZZ_ITERATIONS");
  const long rounds = wanted == nullptr ? 3000 : std::min(std::atol(wanted), 200000L);
  const std::uint64_t seed = 20260101;
  Fuzzer fuzzer(seed);
  for (long round = 0; round < rounds; ++round) {
    const std::string bytes = fuzzer.bytes();
    const std::string answer = server.talk(bytes);
    ASSERT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 "))
        << "seed " << seed << " round " << round << ": " << answer;
    ASSERT_EQ(answer.find("HTTP/1.1 500"), std::string::npos) << bytes << "\n" << answer;
    if (round % 50 != 0) continue;
    const std::string next = server.talk("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(next.starts_with("HTTP/1.1 200")) << "after round " << round << ": " << next;
  }
}

}  // namespace
}  // namespace reference::http
