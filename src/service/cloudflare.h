#pragma once

// Cloudflare's API (v4), as far as a recovery needs it: who serves a tunnel, and where a tunnel, a
// DNS record or a load balancer leads.
//
// What is replaced as a whole over there (a tunnel's configuration, a pool's origins) is read,
// changed in one place, and written; all else in it stays as it was. Each change gives back what
// was there before, so that it can be undone. A limit on requests (429) and a fault of theirs (5xx)
// are waited for, within the time that is given. The token is in a header alone, and in no message.

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/http.h"
#include "base/time.h"

namespace holdfast::service {

/// A process of cloudflared that serves a tunnel.
struct TunnelConnector {
  std::string id;
  std::size_t connections = 0;           ///< to Cloudflare's edge
  std::optional<base::Timestamp> began;  ///< its process; nullopt if they do not say
};

class Cloudflare {
 public:
  static constexpr const char* public_api = "https://api.cloudflare.com/client/v4";

  /// `api`: where the API is. Throws Error(configuration) for one over an open line that is not on
  /// this machine.
  Cloudflare(std::string api, std::string token, std::chrono::milliseconds limit);

  /// Those that are connected to a tunnel.
  std::vector<TunnelConnector> connectors(const std::string& account, const std::string& tunnel);
  /// Ends the connections of one.
  void evict(const std::string& account, const std::string& tunnel, const std::string& connector);

  /// Called with what is there, if it is to be changed; the change is made when it returns.
  using Remember = std::function<void(const std::string& before)>;
  /// Lets a tunnel's host name lead to a service ("http://localhost:8080"). Throws
  /// Error(not_found) if the tunnel does not have one rule for that host name.
  void set_ingress(const std::string& account, const std::string& tunnel,
                   const std::string& hostname, const std::string& service,
                   const Remember& remember);
  /// Sets the content of the one record of that name and type.
  void set_dns(const std::string& zone, const std::string& name, const std::string& type,
               const std::string& content, const Remember& remember);
  /// Sets the address of one of a pool's origins.
  void set_origin(const std::string& account, const std::string& pool, const std::string& origin,
                  const std::string& address, const Remember& remember);

 private:
  nlohmann::json call(const std::string& method, const std::string& path,
                      const nlohmann::json& body = {});
  std::string api_;
  std::string token_;
  std::chrono::milliseconds limit_;
  base::HttpClient client_;
};

}  // namespace holdfast::service
