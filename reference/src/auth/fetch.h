#pragma once

// One HTTP GET of a small document, within a time and a size, whatever the other side does.
//
// http and https only, no redirects; the answer must be 200. Everything else throws
// std::runtime_error with a reason.

#include <atomic>
#include <chrono>
#include <string>

namespace reference::auth {

struct FetchLimits {
  std::chrono::milliseconds time{3000};
  std::size_t bytes = 256 * 1024;
};

/// Returns soon after `stop` became true, by throwing.
std::string fetch(const std::string& url, const FetchLimits& limits, const std::atomic<bool>& stop);

}  // namespace reference::auth
