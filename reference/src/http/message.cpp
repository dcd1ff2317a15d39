#include "http/message.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "http/problem.h"

namespace reference::http {

std::optional<std::string> Request::parameter(const std::string& name) const {
  const auto [first, last] = query.equal_range(name);
  if (first == last) return std::nullopt;
  if (std::next(first) != last) {
    throw Problem(400, "bad_parameter", "cannot accept \"" + name + "\" twice");
  }
  return first->second;
}

void Request::must_be(std::string_view content_type) const {
  std::string given = header ? header("Content-Type") : "";
  given = given.substr(0, given.find(';'));
  while (!given.empty() && given.back() == ' ') given.pop_back();
  const bool same = std::equal(
      given.begin(), given.end(), content_type.begin(), content_type.end(),
      [](char one, char other) { return std::tolower(static_cast<unsigned char>(one)) == other; });
  if (!same) {
    throw Problem(415, "unsupported_media_type",
                  "cannot read this body: its Content-Type must be " + std::string(content_type));
  }
}

nlohmann::json Request::json(std::size_t limit) const {
  must_be("application/json");
  std::string text;
  if (body != nullptr) {
    body->read(limit, [&](std::string_view piece) { text += piece; });
  }
  nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
  if (parsed.is_discarded()) throw Problem(400, "bad_json", "cannot read the body: not JSON");
  return parsed;
}

Response to_response(const Problem& problem) {
  Response response;
  response.status = problem.status();
  response.body = problem.json();
  if (problem.retry_after()) {
    response.headers.emplace_back("Retry-After", std::to_string(problem.retry_after()->count()));
  }
  return response;
}

}  // namespace reference::http
