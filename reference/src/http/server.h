#pragma once

// The HTTP server, on httplib: connections, limits, and an end without losses.
//
// A thread serves one connection at a time. Connections beyond the threads wait in a bounded queue
// (and idle ones give their thread up to them); beyond that they are refused with 503 (refusal.h).
// What a client may send is bounded in size and in time (stream.h). httplib parses requests and
// writes responses; routing is the router's.

#include <chrono>
#include <memory>
#include <string>

#include "http/router.h"

namespace reference::http {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;                    ///< 0: any free one
  std::size_t threads = 128;       ///< connections served at once
  std::size_t waiting = 128;       ///< connections that may wait for a thread
  std::chrono::seconds idle{30};   ///< how long a connection may rest between requests
  std::chrono::seconds drain{20};  ///< how long stop() lets running requests go on
};

class Server {
 public:
  /// Binds at once; throws std::runtime_error if that cannot be done. `router` must outlive it.
  Server(const Router& router, const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  /// Serves until stop(); returns once every request has been answered, or `drain` is over.
  void serve();
  /// Refuses new connections, lets running requests end, and closes idle connections. Any thread
  /// may call it; it does not wait.
  void stop();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace reference::http
