#pragma once

// Where something listens: "host:port", "[::1]:port" or "unix:/path".

#include <sys/socket.h>

#include <string>

#include "base/file.h"

namespace holdfast::service {

/// What bind(2) and connect(2) take.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool is_loopback() const;
  /// "127.0.0.1:8474", "[::1]:8474", "unix:/path".
  std::string text() const;
};

/// Looks names up, which may take a while. Throws Error(usage) for what is not an address and
/// Error(unreachable) for a name that nobody knows.
SocketAddress find_address(const std::string& text);

/// Small pieces are not held back until there are more of them.
void send_at_once(const base::Fd& socket);
/// A new socket for that address that does not block, and sends at once.
base::Fd new_socket(const SocketAddress& address);
/// Bound to `address`, not listening yet. It keeps its port whether it listens or not.
base::Fd bound_socket(const SocketAddress& address);
/// Where a socket is bound: with the port that it got for port 0.
SocketAddress address_of(const base::Fd& socket);

}  // namespace holdfast::service
