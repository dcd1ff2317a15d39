#include "http/router.h"

#include <algorithm>

#include "http/problem.h"
#include "log.h"

namespace reference::http {

namespace {

template <typename Text>
std::vector<Text> split(std::string_view path) {
  std::vector<Text> parts;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::size_t end = std::min(path.find('/'), path.size());
    parts.emplace_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return parts;
}

bool is_name(std::string_view part) {
  return !part.empty() && part.front() == '{';
}

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string_view>& parts) {
  return std::equal(pattern.begin(), pattern.end(), parts.begin(), parts.end(),
                    [](const std::string& wanted, std::string_view given) {
                      return is_name(wanted) ? !given.empty() : wanted == given;
                    });
}

std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view scheme = "bearer ";
  const bool bearer =
      authorization.size() > scheme.size() &&
      std::equal(scheme.begin(), scheme.end(), authorization.begin(), [](char wanted, char given) {
        return given == wanted || (wanted != ' ' && given == wanted - 32);
      });
  if (!bearer) {
    throw Problem(401, "no_token", "cannot tell who asks: no Authorization: Bearer TOKEN");
  }
  return authorization.substr(scheme.size());
}

}  // namespace

void Router::add(const std::string& method, const std::string& path, auth::Role least,
                 Handler handler) {
  std::vector<std::string> parts = split<std::string>(path);
  routes_[parts.at(0)].push_back({{method, path, least}, parts, std::move(handler), nullptr});
}

void Router::add_open(const std::string& method, const std::string& path, OpenHandler handler) {
  std::vector<std::string> parts = split<std::string>(path);
  routes_[parts.at(0)].push_back({{method, path, {}}, parts, nullptr, std::move(handler)});
}

std::vector<RouteInfo> Router::routes() const {
  std::vector<RouteInfo> all;
  for (const auto& [first, routes] : routes_) {
    for (const Route& route : routes) all.push_back(route.info);
  }
  std::sort(all.begin(), all.end(), [](const RouteInfo& one, const RouteInfo& other) {
    return std::tie(one.path, one.method) < std::tie(other.path, other.method);
  });
  return all;
}

const Router::Route* Router::find(Request& request, std::string& allowed) const {
  const std::string_view method =
      request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  if (!request.path.empty() && request.path.front() == '/') {
    const std::vector<std::string_view> parts = split<std::string_view>(request.path);
    const auto candidates = routes_.find(parts.front());
    if (candidates != routes_.end()) {
      for (const Route& route : candidates->second) {
        if (!matches(route.parts, parts)) continue;
        if (route.info.method != method) {
          allowed += (allowed.empty() ? "" : ", ") + route.info.method;
          continue;
        }
        for (std::size_t at = 0; at < parts.size(); ++at) {
          const std::string& name = route.parts[at];
          if (is_name(name)) request.named[name.substr(1, name.size() - 2)] = parts[at];
        }
        return &route;
      }
    }
  }
  return nullptr;
}

Response Router::dispatch(Request& request) const {
  std::string allowed;
  const Route* route = find(request, allowed);
  if (route == nullptr && allowed.empty()) {
    throw Problem(404, "not_found", "there is nothing here");
  }
  if (route == nullptr) {
    Response response =
        to_response(Problem(405, "method_not_allowed", "cannot do that here, only " + allowed));
    response.headers.emplace_back("Allow", allowed);
    return response;
  }
  if (route->open) return route->open(request);
  const std::string authorization = request.header("Authorization");
  const auth::Principal principal = verifier_.verify(bearer_token(authorization));
  if (principal.role < *route->info.least) {
    throw Problem(403, "forbidden",
                  fmt::format("cannot do that as {}: it takes {}", to_string(principal.role),
                              to_string(*route->info.least)));
  }
  return route->handler(request, principal);
}

Response Router::answer(Request& request) const {
  try {
    return dispatch(request);
  } catch (const Problem& problem) {
    // Whoever cannot serve for a while (503) says so himself, once and not for each request.
    if (problem.status() >= 500 && problem.status() != 503) {
      log("{} {}: {} {}", request.method, request.path, problem.status(), problem.message());
    }
    Response response = to_response(problem);
    if (problem.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  } catch (const std::exception& error) {
    log("{} {}: {}", request.method, request.path, error.what());
    return to_response(Problem(500, "internal", "could not do that: an error of the service"));
  }
}

}  // namespace reference::http
