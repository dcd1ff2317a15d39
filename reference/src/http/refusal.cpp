#include "http/refusal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "http/problem.h"

namespace reference::http {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t most = 512;
constexpr std::size_t head_bytes = 8UL << 10;
constexpr std::chrono::milliseconds patience(1000);

std::string response(std::string_view status, std::string_view more, const std::string& body) {
  return std::string("HTTP/1.1 ")
      .append(status)
      .append("\r\nContent-Type: application/json\r\nConnection: close\r\n")
      .append(more)
      .append("Content-Length: ")
      .append(std::to_string(body.size()))
      .append("\r\n\r\n")
      .append(body);
}

const std::string& answer_to(std::string_view head) {
  static const std::string healthy = response("200 OK", "", R"({"status":"ok"})");
  static const std::string busy =
      response("503 Service Unavailable", "Retry-After: 1\r\n",
               Problem(503, "overloaded", "could not take this request: too many at once").json());
  return head.substr(0, 12) == "GET /health " ? healthy : busy;
}

}  // namespace

Refusal::Refusal() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_ < 0) throw std::runtime_error("could not make an eventfd");
  thread_ = std::thread([this] { work(); });
}

Refusal::~Refusal() {
  stopping_ = true;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake_, &one, sizeof(one));
  thread_.join();
  ::close(wake_);
}

void Refusal::take(int socket) {
  if (count_ >= most) {
    ::close(socket);
    return;
  }
  ++count_;
  {
    const std::lock_guard lock(mutex_);
    arrived_.push_back({socket, Clock::now() + patience, {}, false});
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake_, &one, sizeof(one));
}

bool Refusal::attend(Client& client) {
  char bytes[4096];
  const ssize_t got = ::recv(client.socket, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got <= 0) return false;
  if (client.answered) return true;  // it reads what we said, and then closes
  client.head.append(bytes, static_cast<std::size_t>(got));
  if (client.head.find("\r\n\r\n") == std::string::npos && client.head.size() < head_bytes) {
    return true;
  }
  const std::string& answer = answer_to(client.head);
  ::send(client.socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(client.socket, SHUT_WR);
  client.answered = true;
  return true;
}

void Refusal::work() {
  std::vector<Client> clients;
  std::vector<pollfd> wanted;
  while (!stopping_ || !clients.empty()) {
    wanted.assign(1, {wake_, POLLIN, 0});
    for (const Client& client : clients) wanted.push_back({client.socket, POLLIN, 0});
    ::poll(wanted.data(), wanted.size(), clients.empty() ? -1 : 100);
    const Clock::time_point now = Clock::now();
    std::vector<Client> kept;
    for (std::size_t at = 0; at < clients.size(); ++at) {
      const bool ready = wanted[at + 1].revents != 0;
      if (now < clients[at].until && (!ready || attend(clients[at]))) {
        kept.push_back(std::move(clients[at]));
      } else {
        ::close(clients[at].socket);
        --count_;
      }
    }
    clients = std::move(kept);
    std::uint64_t ignored = 0;
    [[maybe_unused]] const ssize_t read = ::read(wake_, &ignored, sizeof(ignored));
    const std::lock_guard lock(mutex_);
    for (Client& client : arrived_) clients.push_back(std::move(client));
    arrived_.clear();
  }
}

}  // namespace reference::http
