#pragma once

// A small HTTP/1.1 server for this machine: to steer something or to show it, not to serve the
// world.
//
// It listens on loopback addresses only. A request has at most 16 KiB of headers and 1 MiB of body,
// with a Content-Length; connections are kept alive. Whatever is not clearly a request is answered
// with an error and the connection closed. A browser must not be led to it by a page from
// elsewhere: requests with an Origin, from "Mozilla/", or for a Host that is not this machine are
// refused (403). Where there is only something to read, browsers are welcome to GET it.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "service/address.h"
#include "service/event_loop.h"

namespace holdfast::service {

struct HttpRequest {
  std::string method;
  std::string path;                            ///< without what follows a "?", not decoded
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string type = "application/json";
};

/// What the first bytes of a connection say.
struct ParsedRequest {
  enum class State { incomplete, complete, bad };
  State state = State::incomplete;
  HttpRequest request;
  std::size_t used = 0;  ///< bytes that were this request's
  HttpResponse refusal;  ///< if it is bad
};
enum class Audience {
  programs,
  readers,  ///< browsers as well, for what a GET shows; the handler must change nothing
};
ParsedRequest parse_request(std::string_view bytes, Audience audience = Audience::programs);

class HttpListener {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;
  /// Listens from now on and calls `handler`, which must not throw, in a thread of its own. Throws
  /// Error(refused) for an address that others can reach.
  HttpListener(const SocketAddress& address, Handler handler,
               Audience audience = Audience::programs);
  ~HttpListener();
  HttpListener(const HttpListener&) = delete;
  HttpListener& operator=(const HttpListener&) = delete;

  /// With the port that it got.
  const SocketAddress& address() const { return address_; }

 private:
  struct Connection;
  void accept();
  void begin_to_wait(Connection& connection);
  void on_events(Connection& connection, std::uint32_t events);
  bool answer(Connection& connection);
  bool write(Connection& connection);
  void end(Connection& connection);

  Handler handler_;
  const Audience audience_;
  base::Fd socket_;
  SocketAddress address_;
  EventLoop::Watch watch_ = 0;
  std::map<int, std::unique_ptr<Connection>> connections_;
  EventLoop loop_;  // the last: its thread uses the others
};

}  // namespace holdfast::service
