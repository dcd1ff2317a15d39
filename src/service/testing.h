#pragma once

// For tests only: both ends of connections through a proxy.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <thread>

#include "service/fault_proxy.h"

namespace holdfast::service::testing {

/// A server on a free port that accepts when it is told to.
class Upstream {
 public:
  Upstream() : socket_(bound_socket(find_address("127.0.0.1:0"))) { ::listen(socket_.get(), 64); }
  std::string address() const { return address_of(socket_).text(); }
  base::Fd accept() const {
    pollfd ready{socket_.get(), POLLIN, 0};
    ::poll(&ready, 1, 10'000);
    return base::Fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  base::Fd socket_;
};

/// A connection that blocks, or none with errno.
inline base::Fd connected(const std::string& address) {
  const SocketAddress where = find_address(address);
  base::Fd fd(::socket(where.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), where.get(), where.size) != 0) return {};
  const timeval limit{10, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return fd;
}

inline void send_all(const base::Fd& to, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

/// `count` bytes, or what came before the end.
inline std::string receive(const base::Fd& from, std::size_t count) {
  std::string got(count, '\0');
  std::size_t filled = 0;
  while (filled < count) {
    const ssize_t more = ::recv(from.get(), got.data() + filled, count - filled, 0);
    if (more <= 0) break;
    filled += static_cast<std::size_t>(more);
  }
  got.resize(filled);
  return got;
}

/// How a stream ended that has nothing more: 0 for its end, else errno.
inline int end_of(const base::Fd& from) {
  char byte = 0;
  const ssize_t got = ::recv(from.get(), &byte, 1, 0);
  return got == 0 ? 0 : got < 0 ? errno : -1;
}

inline bool is_silent(const base::Fd& from) {
  pollfd ready{from.get(), POLLIN, 0};
  return ::poll(&ready, 1, 100) == 0;
}

inline std::chrono::milliseconds time_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                               start);
}

inline bool soon(const std::function<bool()>& condition) {
  for (int turn = 0; turn < 5000; ++turn) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

}  // namespace holdfast::service::testing
