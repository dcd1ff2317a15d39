#include "http/stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "http/problem.h"

namespace reference::http {

namespace {

constexpr std::size_t read_size = 16UL << 10;
constexpr std::size_t send_size = 64UL << 10;

using Clock = std::chrono::steady_clock;

bool await(int socket, short events, std::chrono::milliseconds limit) {
  pollfd wanted{socket, events, 0};
  const Clock::time_point until = Clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    const int ready = ::poll(&wanted, 1, static_cast<int>(std::max<long>(0, left.count())));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

}  // namespace

Stream::Stream(int socket, const Limits& limits) : socket_(socket), limits_(limits) {
  // Waiting is done with poll() only, so that each wait has its limit.
  ::fcntl(socket_, F_SETFL, ::fcntl(socket_, F_GETFL) | O_NONBLOCK);
}

Stream::~Stream() {
  ::close(socket_);
}

bool Stream::await_input(std::chrono::milliseconds limit) const {
  return position_ < input_.size() || await(socket_, POLLIN, limit);
}

std::span<char> Stream::read_head() {
  input_.erase(0, std::exchange(position_, 0));
  until_ = Clock::now() + limits_.head;
  for (std::size_t at = 0;;) {
    const std::size_t end = input_.find('\n', at);
    if (end == std::string::npos ? input_.size() > limits_.head_bytes : end >= limits_.head_bytes) {
      throw Problem(431, "too_large", "cannot read a request with so large a head");
    }
    if (end != std::string::npos) {
      if (end == 0 || input_[end - 1] != '\r') {
        throw Problem(400, "bad_request", "cannot read this request: a line without CR");
      }
      if (end == at + 1 && at > 0) return {input_.data(), end + 1};
      at = end + 1;
      continue;
    }
    const ssize_t got = fill();
    if (got < 0 && errno == ETIMEDOUT) {
      throw Problem(408, "timeout", "could not read the request: it took too long");
    }
    if (got <= 0 && input_.empty()) return {};
    if (got <= 0) throw Problem(400, "bad_request", "cannot read this request: it broke off");
  }
}

void Stream::begin_body() {
  until_ = Clock::now() + limits_.body;
}

bool Stream::is_readable() const {
  return position_ < input_.size() || await(socket_, POLLIN, limits_.piece);
}

bool Stream::is_writable() const {
  return true;
}

ssize_t Stream::fill() {
  const std::size_t before = input_.size();
  for (;;) {
    input_.resize(before + read_size);
    const ssize_t got = ::recv(socket_, input_.data() + before, read_size, 0);
    const int error = errno;
    input_.resize(before + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got >= 0) return got;
    if (error == EINTR) continue;
    errno = error;
    if (error != EAGAIN) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until_ - Clock::now());
    if (!await(socket_, POLLIN, std::clamp(left, std::chrono::milliseconds(0), limits_.piece))) {
      errno = ETIMEDOUT;
      return -1;
    }
  }
}

ssize_t Stream::read(char* into, std::size_t size) {
  if (position_ == input_.size()) {
    // What has been written so far is what the client waits for (100 Continue).
    if (!output_.empty() && !flush()) return -1;
    input_.clear();
    position_ = 0;
    const ssize_t got = fill();
    if (got <= 0) return got;
  }
  const std::size_t count = std::min(size, input_.size() - position_);
  std::memcpy(into, input_.data() + position_, count);
  position_ += count;
  return static_cast<ssize_t>(count);
}

ssize_t Stream::write(const char* data, std::size_t size) {
  output_.append(data, size);
  if (output_.size() >= send_size && !flush()) return -1;
  return static_cast<ssize_t>(size);
}

bool Stream::flush() {
  std::size_t sent = 0;
  while (sent < output_.size()) {
    const ssize_t count =
        ::send(socket_, output_.data() + sent, output_.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      if (!await(socket_, POLLOUT, limits_.piece)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  output_.clear();
  return true;
}

void Stream::finish() {
  ::shutdown(socket_, SHUT_WR);
  const Clock::time_point until = Clock::now() + std::chrono::milliseconds(500);
  char ignored[4096];
  while (Clock::now() < until && await(socket_, POLLIN, std::chrono::milliseconds(100))) {
    if (::recv(socket_, ignored, sizeof(ignored), 0) <= 0) return;
  }
}

void Stream::get_remote_ip_and_port(std::string& ip, int& port) const {
  // Nobody here asks who it is, and finding out takes a system call for each request.
  ip.clear();
  port = 0;
}

void Stream::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace reference::http
