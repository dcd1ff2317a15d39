#include "service/address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;

[[noreturn]] void not_an_address(const std::string& text) {
  throw Error(Code::usage, fmt::format("\"{}\" is not an address", text),
              "write HOST:PORT, [IPV6]:PORT or unix:/PATH");
}

SocketAddress unix_address(const std::string& text, const std::string& path) {
  SocketAddress address;
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof un.sun_path || path.find('\0') != std::string::npos) {
    not_an_address(text);
  }
  std::memcpy(un.sun_path, path.data(), path.size());
  std::memcpy(&address.storage, &un, sizeof un);
  address.size = sizeof un;
  return address;
}

/// Host and port; the port is checked, the host not yet.
std::pair<std::string, std::string> split(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) not_an_address(text);
  std::string host = text.substr(0, colon);
  std::string port = text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    not_an_address(text);
  }
  std::uint16_t number = 0;
  const auto [stop, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || host.find('\0') != std::string::npos || error != std::errc() ||
      stop != port.data() + port.size()) {
    not_an_address(text);
  }
  return {std::move(host), std::move(port)};
}

}  // namespace

bool SocketAddress::is_loopback() const {
  if (storage.ss_family == AF_UNIX) return true;
  if (storage.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &storage, sizeof in);
    return (ntohl(in.sin_addr.s_addr) >> 24) == 127;
  }
  sockaddr_in6 in6{};
  std::memcpy(&in6, &storage, sizeof in6);
  return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) != 0;
}

std::string SocketAddress::text() const {
  if (storage.ss_family == AF_UNIX) {
    sockaddr_un un{};
    std::memcpy(&un, &storage, sizeof un);
    return fmt::format("unix:{}", un.sun_path);
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  ::getnameinfo(get(), size, host.data(), host.size(), port.data(), port.size(),
                NI_NUMERICHOST | NI_NUMERICSERV);
  return storage.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host.data(), port.data())
                                       : fmt::format("{}:{}", host.data(), port.data());
}

SocketAddress find_address(const std::string& text) {
  constexpr std::string_view unix_scheme = "unix:";
  if (text.starts_with(unix_scheme)) return unix_address(text, text.substr(unix_scheme.size()));
  const auto [host, port] = split(text);
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  // "localhost" is IPv4 here, whatever the machine prefers: servers listen there.
  const std::string name = host == "localhost" ? "127.0.0.1" : host;
  const int failed = ::getaddrinfo(name.c_str(), port.c_str(), &wanted, &found);
  if (failed != 0) {
    throw Error(Code::unreachable,
                fmt::format("could not find \"{}\": {}", host, ::gai_strerror(failed)),
                "see whether the name is spelt right and can be looked up here");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.size = found->ai_addrlen;
  return address;
}

void send_at_once(const base::Fd& socket) {
  const int on = 1;  // a Unix socket does so anyway, and does not know the option
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

base::Fd new_socket(const SocketAddress& address) {
  base::Fd made(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) base::fail_errno("make a socket", errno);
  send_at_once(made);
  return made;
}

SocketAddress address_of(const base::Fd& socket) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.size) !=
      0) {
    base::fail_errno("ask where a socket is bound", errno);
  }
  return address;
}

namespace {

base::Fd bound_as_said(const SocketAddress& address) {
  base::Fd made = new_socket(address);
  const int on = 1;
  ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(made.get(), address.get(), address.size) != 0) {
    base::fail_errno(fmt::format("listen on {}", address.text()), errno);
  }
  return made;
}

}  // namespace

base::Fd bound_socket(const SocketAddress& address) {
  base::Fd first = bound_as_said(address);
  if (address.storage.ss_family == AF_UNIX) return first;
  // A socket that got its port by asking for 0 loses it when it stops listening; one that asked for
  // the number does not.
  return bound_as_said(address_of(first));
}

}  // namespace holdfast::service
