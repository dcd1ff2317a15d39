#include "service/http_listener.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>

#include "base/error.h"

namespace holdfast::service {

namespace {

constexpr std::size_t most_headers = 16 << 10;
constexpr std::size_t most_body = 1 << 20;
constexpr std::size_t most_connections = 64;
/// For a request and its answer, from the end of the one before.
constexpr std::chrono::seconds patience{60};

std::string_view reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Payload Too Large";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

ParsedRequest bad(int status, std::string_view why) {
  ParsedRequest parsed;
  parsed.state = ParsedRequest::State::bad;
  parsed.refusal = {status, fmt::format("{{\"error\":\"{}\",\"status\":{}}}", why, status)};
  return parsed;
}

/// "127.0.0.1:8474", "localhost", "[::1]:8474".
bool names_this_machine(std::string_view host) {
  if (host.starts_with('[')) return host.starts_with("[::1]");
  host = host.substr(0, host.find(':'));
  if (host == "localhost") return true;
  return host.starts_with("127.") && std::ranges::all_of(host, [](unsigned char c) {
           return std::isdigit(c) != 0 || c == '.';
         });
}

/// Why a request that is well-formed is not to be answered; nullopt if it is.
std::optional<ParsedRequest> refusal_of(const HttpRequest& request, Audience audience) {
  const auto header = [&](const char* name) {
    const auto found = request.headers.find(name);
    return found == request.headers.end() ? std::string() : found->second;
  };
  const bool reads = audience == Audience::readers && request.method == "GET";
  const bool is_browser = header("user-agent").starts_with("Mozilla/");
  if (request.headers.contains("origin") || (is_browser && !reads)) {
    return bad(403, "browsers are not allowed");
  }
  if (!names_this_machine(header("host"))) return bad(403, "host is not this machine");
  if (request.headers.contains("transfer-encoding")) return bad(411, "Content-Length is required");
  return std::nullopt;
}

/// The headers after the request line, into `request`; false if they are none.
bool read_headers(std::string_view lines, HttpRequest& request) {
  while (!lines.empty()) {
    const std::size_t end = lines.find("\r\n");
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 2);
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return false;
    const std::string_view value = trimmed(line.substr(colon + 1));
    std::string name(line.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (!is_printable(value)) return false;
    // Two different lengths or hosts in one request are an attack, and nothing else needs two.
    if (!request.headers.emplace(std::move(name), value).second) return false;
  }
  return true;
}

bool read_request_line(std::string_view line, HttpRequest& request) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return false;
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return false;
  if (!is_token(line.substr(0, first)) || !target.starts_with('/') || !is_printable(target) ||
      target.find(' ') != std::string_view::npos) {
    return false;
  }
  request.method = line.substr(0, first);
  request.path = target.substr(0, target.find('?'));
  if (version == "HTTP/1.0") request.headers.emplace("connection", "close");
  return true;
}

}  // namespace

ParsedRequest parse_request(std::string_view bytes, Audience audience) {
  const std::size_t end = bytes.substr(0, most_headers).find("\r\n\r\n");
  if (end == std::string_view::npos) {
    return bytes.size() < most_headers ? ParsedRequest() : bad(431, "too many headers");
  }
  ParsedRequest parsed;
  const std::string_view head = bytes.substr(0, end);
  const std::size_t first = std::min(head.find("\r\n"), head.size());
  if (!read_request_line(head.substr(0, first), parsed.request) ||
      !read_headers(head.substr(std::min(first + 2, head.size())), parsed.request)) {
    return bad(400, "not an HTTP request");
  }
  if (auto refusal = refusal_of(parsed.request, audience)) return std::move(*refusal);
  std::size_t length = 0;
  const auto found = parsed.request.headers.find("content-length");
  if (found != parsed.request.headers.end()) {
    const std::string& text = found->second;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    if (error != std::errc() || stop != text.data() + text.size()) {
      return bad(400, "not a Content-Length");
    }
  }
  if (length > most_body) return bad(413, "the body is too large");
  const std::size_t begin = end + 4;
  if (bytes.size() - begin < length) return {};
  parsed.request.body = bytes.substr(begin, length);
  parsed.used = begin + length;
  parsed.state = ParsedRequest::State::complete;
  return parsed;
}

struct HttpListener::Connection {
  base::Fd fd;
  EventLoop::Watch watch = 0;
  EventLoop::Timer timer;
  EventLoop::Clock::time_point since;  ///< that we wait for its request
  std::string input;
  std::string output;
  bool closes = false;   ///< after the output
  bool invited = false;  ///< it was told to go on (100 Continue)
};

HttpListener::HttpListener(const SocketAddress& address, Handler handler, Audience audience)
    : handler_(std::move(handler)), audience_(audience) {
  if (!address.is_loopback()) {
    throw base::Error(base::Code::refused,
                      fmt::format("refused to listen on {}: others could reach it", address.text()),
                      "name a loopback address such as 127.0.0.1:8474");
  }
  socket_ = bound_socket(address);
  if (::listen(socket_.get(), 64) != 0) base::fail_errno("listen", errno);
  address_ = address_of(socket_);
  loop_.call([this] { watch_ = loop_.watch(socket_, EPOLLIN, [this](auto) { accept(); }); });
}

HttpListener::~HttpListener() {
  loop_.call([this] {
    loop_.unwatch(watch_, socket_);
    while (!connections_.empty()) end(*connections_.begin()->second);
  });
}

void HttpListener::accept() {
  base::Fd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const bool full = connections_.size() >= most_connections || (!fd && errno == EMFILE);
  // Who has said nothing for longest goes, rather than whoever comes to ask.
  if (full && !connections_.empty()) {
    end(*std::ranges::min_element(connections_, {}, [](const auto& each) {
           return each.second->since;
         })->second);
  }
  if (!fd) return;
  send_at_once(fd);
  const int number = fd.get();
  auto connection = std::make_unique<Connection>();
  Connection& made = *connection;
  made.fd = std::move(fd);
  made.watch = loop_.watch(made.fd, EPOLLIN,
                           [this, &made](std::uint32_t events) { on_events(made, events); });
  connections_.emplace(number, std::move(connection));
  begin_to_wait(made);
}

void HttpListener::begin_to_wait(Connection& connection) {
  loop_.cancel(connection.timer);
  connection.since = EventLoop::Clock::now();
  connection.timer =
      loop_.at(connection.since + patience, [this, &connection] { end(connection); });
}

void HttpListener::end(Connection& connection) {
  loop_.cancel(connection.timer);
  loop_.unwatch(connection.watch, connection.fd);
  connections_.erase(connection.fd.get());
}

void HttpListener::on_events(Connection& connection, std::uint32_t events) {
  if ((events & EPOLLIN) != 0) {
    std::array<char, 16 << 10> buffer;
    const ssize_t got = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end(connection);
    connection.input.append(buffer.data(), static_cast<std::size_t>(got));
  } else if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    return end(connection);
  }
  // One answer is sent before the next request is read.
  while (connection.output.empty() && answer(connection)) {
    if (!write(connection)) return end(connection);
  }
  if (!write(connection)) return end(connection);
  const bool waits = !connection.output.empty();
  loop_.change(connection.watch, connection.fd, waits ? EPOLLOUT : EPOLLIN);
}

/// Answers one request, if there is one.
bool HttpListener::answer(Connection& connection) {
  if (connection.closes) return false;
  ParsedRequest parsed = parse_request(connection.input, audience_);
  if (parsed.state == ParsedRequest::State::incomplete) {
    // curl asks before it sends a larger body.
    const bool asks = connection.input.find("100-continue") != std::string::npos &&
                      connection.input.find("\r\n\r\n") != std::string::npos;
    if (asks && !connection.invited) {
      connection.invited = true;
      connection.output = "HTTP/1.1 100 Continue\r\n\r\n";
    }
    return false;
  }
  const bool bad = parsed.state == ParsedRequest::State::bad;
  begin_to_wait(connection);
  const HttpResponse response = bad ? parsed.refusal : handler_(parsed.request);
  const auto header = parsed.request.headers.find("connection");
  connection.closes = bad || (header != parsed.request.headers.end() && header->second == "close");
  connection.invited = false;
  connection.input.erase(0, parsed.used);
  connection.output = fmt::format("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
  if (response.status != 204) {
    connection.output += fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", response.type,
                                     response.body.size());
  }
  connection.output +=
      fmt::format("{}\r\n{}", connection.closes ? "Connection: close\r\n" : "", response.body);
  return true;
}

/// False if the connection is over.
bool HttpListener::write(Connection& connection) {
  while (!connection.output.empty()) {
    const ssize_t sent = ::send(connection.fd.get(), connection.output.data(),
                                connection.output.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    connection.output.erase(0, static_cast<std::size_t>(sent));
  }
  return !connection.closes;
}

}  // namespace holdfast::service
