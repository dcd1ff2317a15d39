#pragma once

// A request and its answer, as handlers see them.

#include <cstddef>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace reference::http {

/// The body of a request, which has not been read yet: whoever may not send one is refused first.
class Body {
 public:
  Body() = default;
  virtual ~Body() = default;
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;
  /// Hands over the whole body piece by piece, as it arrives. Throws Problem: 413 when it has more
  /// than `limit` bytes, 400 when it breaks off; and what `take` throws.
  virtual void read(std::size_t limit, const std::function<void(std::string_view)>& take) = 0;
};

struct Request {
  std::string method;
  std::string path;                                       ///< decoded, without the query
  std::multimap<std::string, std::string> query;          ///< decoded
  std::map<std::string, std::string, std::less<>> named;  ///< what {name} in the route stands for
  std::function<std::string(const std::string&)> header;  ///< "" if there is none
  Body* body = nullptr;                                   ///< nullptr if there is none

  /// The value of a query parameter; throws Problem 400 if it is given twice.
  std::optional<std::string> parameter(const std::string& name) const;
  /// The whole body, of application/json. Throws Problem: 400 if it is not JSON or not there, 413
  /// beyond `limit` bytes, 415 for another content type.
  nlohmann::json json(std::size_t limit = 64UL << 10) const;
  /// Throws Problem 415 unless the body is of this content type (its parameters do not matter).
  void must_be(std::string_view content_type) const;
};

/// Sends a piece of a streamed body. Throws if the client has gone or takes nothing for long.
using Write = std::function<void(std::string_view)>;

struct Response {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  /// Instead of a body: called once, after the head has been sent, in the request's thread. What it
  /// throws cuts the connection off, so that the client notices that the rest is missing.
  std::function<void(const Write&)> stream;
};

class Problem;
Response to_response(const Problem& problem);

}  // namespace reference::http
