#include "base/http.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

namespace holdfast::base {
namespace {

using std::chrono::milliseconds;

/// A listening socket of this machine, and one thread that treats each connection to it.
class OneServer {
 public:
  explicit OneServer(std::function<void(int)> treat) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(socket_, 8) != 0 ||
        ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      ADD_FAILURE() << "cannot listen";
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, treat = std::move(treat)] {
      for (;;) {
        const int connection = ::accept(socket_, nullptr, nullptr);
        if (connection < 0) return;
        ++connections;
        treat(connection);
        ::close(connection);
      }
    });
  }
  ~OneServer() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  std::string url(const std::string& path = "/") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }

  std::atomic<int> connections = 0;

 private:
  int socket_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

/// Everything up to an empty line, and a body as long as it says.
std::string read_request(int connection) {
  std::string text;
  std::size_t want = std::string::npos;
  while (text.size() < want) {
    char buffer[4096];
    const ssize_t got = ::read(connection, buffer, sizeof(buffer));
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos) continue;
    const std::size_t length = text.find("Content-Length: ");
    want = end + 4 + (length < end ? std::stoul(text.substr(length + 16)) : 0);
  }
  return text;
}

void send_text(int connection, const std::string& text) {
  EXPECT_EQ(::send(connection, text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

TEST(Http, asks_twice_over_one_connection_and_tells_status_headers_and_body) {
  std::vector<std::string> seen;
  OneServer server([&](int connection) {
    for (;;) {
      const std::string request = read_request(connection);
      if (request.empty()) return;
      seen.push_back(request);
      send_text(connection,
                "HTTP/1.1 503 Not now\r\nRetry-After:  7 \r\nContent-Length: 5\r\n\r\nlater");
    }
  });
  {
    HttpClient client;
    HttpRequest request{"PATCH", server.url("/a?b=c"), {{"X-One", "1"}}, "{}", milliseconds(5000)};
    const HttpAnswer answer = client.ask(request);
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.headers.at("retry-after"), "7");
    EXPECT_EQ(answer.body, "later");
    EXPECT_GT(answer.took.count(), 0);
    request = {};
    request.url = server.url();
    EXPECT_EQ(client.ask(request).status, 503);
    EXPECT_EQ(server.connections, 1);
  }
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0].substr(0, 23), "PATCH /a?b=c HTTP/1.1\r\n");
  EXPECT_NE(seen[0].find("X-One: 1\r\n"), std::string::npos);
  EXPECT_EQ(seen[0].substr(seen[0].size() - 2), "{}");
  EXPECT_EQ(seen[1].substr(0, 6), "GET / ") << "nothing of the first request is in the second";
  EXPECT_EQ(seen[1].find("X-One"), std::string::npos);
}

TEST(Http, does_not_take_a_cut_answer_for_one) {
  OneServer server([](int connection) {
    read_request(connection);
    send_text(connection, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
  });
  const HttpAnswer answer = http_get(server.url(), milliseconds(5000));
  EXPECT_EQ(answer.status, std::nullopt);
  EXPECT_NE(answer.why_not, "");
}

TEST(Http, gives_up_when_the_time_is_over) {
  OneServer server([](int connection) {
    read_request(connection);
    char byte = 0;
    [[maybe_unused]] const auto end = ::read(connection, &byte, 1);  // until the client has gone
  });
  const auto start = std::chrono::steady_clock::now();
  const HttpAnswer answer = http_get(server.url(), milliseconds(200));
  EXPECT_EQ(answer.status, std::nullopt);
  EXPECT_NE(answer.why_not, "");
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(5000));
}

TEST(Http, keeps_the_beginning_of_a_body_without_end) {
  OneServer server([](int connection) {
    read_request(connection);
    send_text(connection, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    const std::string piece(1000, 'x');
    for (int i = 0; i < 3000; ++i) {
      if (::send(connection, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) return;
    }
  });
  const HttpAnswer answer = http_get(server.url(), milliseconds(10000));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body.size(), HttpClient::largest_body);
}

}  // namespace
}  // namespace holdfast::base
