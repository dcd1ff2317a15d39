#pragma once

// Which handler answers what, and who may ask it.
//
// A route is a method and a path whose parts in braces stand for anything: GET /comps/{id}. All
// routes but the few that are open need a token, and say which role it must at least have: nobody
// can forget to ask. Registered once, before serving; then used by many threads.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "auth/verifier.h"
#include "http/message.h"

namespace reference::http {

using Handler = std::function<Response(Request&, const auth::Principal&)>;
using OpenHandler = std::function<Response(Request&)>;

/// A route as documents and tests see it.
struct RouteInfo {
  std::string method;
  std::string path;
  std::optional<auth::Role> least;  ///< nullopt: open to everyone
};

class Router {
 public:
  explicit Router(auth::Verifier& verifier) : verifier_(verifier) {}

  void add(const std::string& method, const std::string& path, auth::Role least, Handler handler);
  void add_open(const std::string& method, const std::string& path, OpenHandler handler);

  /// The answer to a request, whatever happens: 404 and 405 (with Allow), 401 and 403, a handler's
  /// answer or its Problem, and 500 (with a line in the log) for anything else that it throws. HEAD
  /// is GET.
  Response answer(Request& request) const;
  /// All of them, sorted by path and method.
  std::vector<RouteInfo> routes() const;

 private:
  struct Route {
    RouteInfo info;
    std::vector<std::string> parts;
    Handler handler;
    OpenHandler open;
  };
  /// nullptr if there is none; `allowed` then says with which methods there would be one.
  const Route* find(Request& request, std::string& allowed) const;
  Response dispatch(Request& request) const;

  auth::Verifier& verifier_;
  /// By the first part of the path.
  std::map<std::string, std::vector<Route>, std::less<>> routes_;
};

}  // namespace reference::http
