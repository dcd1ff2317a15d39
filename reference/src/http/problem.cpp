#include "http/problem.h"

#include <nlohmann/json.hpp>

namespace reference::http {

Problem::Problem(int status, std::string code, std::string message,
                 std::optional<std::chrono::seconds> retry_after)
    : status_(status),
      code_(std::move(code)),
      message_(std::move(message)),
      retry_after_(retry_after) {}

Problem::Problem(std::map<std::string, std::string> fields)
    : status_(422), code_("invalid"), fields_(std::move(fields)) {
  message_ = "cannot accept these fields:";
  for (const auto& [name, wrong] : fields_) {
    message_ += message_.back() == ':' ? " " : ", ";
    message_.append(name).append(" ").append(wrong);
  }
}

std::string Problem::json() const {
  nlohmann::json error = {{"code", code_}, {"message", message_}};
  if (!fields_.empty()) error["fields"] = fields_;
  // Clients' words may be quoted, and need not be UTF-8.
  return nlohmann::json{{"error", std::move(error)}}.dump(-1, ' ', false,
                                                          nlohmann::json::error_handler_t::replace);
}

}  // namespace reference::http
