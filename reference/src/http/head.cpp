#include "http/head.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

#include "http/problem.h"

namespace reference::http {

namespace {

constexpr std::size_t longest_header = 8000;  ///< httplib gives up at 8 KiB

/// Headers that mean nothing when there are two.
constexpr std::array<std::string_view, 8> single = {
    "authorization", "content-encoding", "content-length",   "content-type", "expect",
    "host",          "idempotency-key",  "transfer-encoding"};

[[noreturn]] void refuse(const std::string& why) {
  throw Problem(400, "bad_request", "cannot read this request: " + why);
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char each) {
    return std::isalnum(each) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(each)) !=
               std::string_view::npos;
  });
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char each) {
    return (each < ' ' && each != '\t') || each == 0x7f;
  });
}

}  // namespace

void check_head(std::span<char> bytes) {
  std::array<int, single.size()> seen{};
  std::string_view head(bytes.data(), bytes.size());
  const std::size_t first = head.find("\r\n");
  const std::string_view request = head.substr(0, first);
  if (has_control(request)) refuse("a control character");
  head.remove_prefix(first + 2);
  while (head != "\r\n") {
    const std::size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (line.size() > longest_header) {
      throw Problem(431, "too_large", "cannot read a request with so large a header");
    }
    if (has_control(line)) refuse("a control character");
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
      refuse("not a header");
    }
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char each) { return static_cast<char>(std::tolower(each)); });
    if (name == "range") bytes[static_cast<std::size_t>(line.data() - bytes.data())] = '-';
    const auto* const known = std::find(single.begin(), single.end(), name);
    if (known != single.end() && ++seen[static_cast<std::size_t>(known - single.begin())] > 1) {
      refuse(name + " twice");
    }
    // httplib would decode it.
    if (known != single.end() && name != "idempotency-key" && line.find('%') != line.npos) {
      refuse("a percent sign in " + name);
    }
  }
  const bool old = request.ends_with(" HTTP/1.0");
  const auto count = [&](std::string_view name) {
    const auto* const at = std::find(single.begin(), single.end(), name);
    return seen[static_cast<std::size_t>(at - single.begin())];
  };
  if (!old && count("host") == 0) refuse("no Host");
  if (old && count("transfer-encoding") > 0) refuse("HTTP/1.0 has no Transfer-Encoding");
}

}  // namespace reference::http
