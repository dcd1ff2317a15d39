#pragma once

// Asking a web server whether it is well (libcurl).
//
// libcurl is loaded with the first question: it brings many libraries along, and the programs that
// run once for each WAL segment ask nobody.

#include <chrono>
#include <optional>
#include <string>

namespace holdfast::base {

/// The status of a GET, or why there was none (refused, timed out, not HTTP).
struct HttpAnswer {
  std::optional<long> status;
  std::string why_not;
};
/// Follows no redirection and uses no proxy. Throws Error(not_found) only if libcurl is not there.
HttpAnswer http_get(const std::string& url, std::chrono::milliseconds limit);

}  // namespace holdfast::base
