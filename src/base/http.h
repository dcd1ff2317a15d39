#pragma once

// Talking to web servers (libcurl): is one well, and what does it answer.
//
// libcurl is loaded with the first question: it brings many libraries along, and the programs that
// run once for each WAL segment ask nobody.

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::base {

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::chrono::milliseconds limit = std::chrono::seconds(10);  ///< for all of it
};

/// What came back; or why nothing whole did (refused, timed out, cut, not HTTP).
struct HttpAnswer {
  std::optional<long> status;
  /// Names in lower case; of several with one name the last.
  std::map<std::string, std::string, std::less<>> headers;
  std::string body;  ///< at most HttpClient::largest_body; what follows is read and dropped
  std::string why_not;
  std::chrono::microseconds took{};  ///< from the call to the last byte
};

/// Asks again and again, over connections that are kept open. Follows no redirection and uses no
/// proxy. For one thread.
class HttpClient {
 public:
  static constexpr std::size_t largest_body = 1 << 20;

  /// Throws Error(not_found) if libcurl is not there.
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  HttpAnswer ask(const HttpRequest& request);
  /// Closes what is open: the next request makes a new connection.
  void forget_connections();

 private:
  void* handle_;
};

/// A single GET. Throws Error(not_found) only if libcurl is not there.
HttpAnswer http_get(const std::string& url, std::chrono::milliseconds limit);

}  // namespace holdfast::base
