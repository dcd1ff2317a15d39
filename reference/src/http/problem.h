#pragma once

// How everything in the service fails: a Problem is thrown where it is found and becomes the
// answer,
// {"error":{"code","message"}}. `code` is for programs and stays the same, `message` is for people.

#include <chrono>
#include <exception>
#include <map>
#include <optional>
#include <string>

namespace reference::http {

class Problem : public std::exception {
 public:
  Problem(int status, std::string code, std::string message,
          std::optional<std::chrono::seconds> retry_after = {});
  /// 422: what is wrong with each field.
  explicit Problem(std::map<std::string, std::string> fields);

  int status() const { return status_; }
  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }
  /// When to try again (503): the header Retry-After.
  std::optional<std::chrono::seconds> retry_after() const { return retry_after_; }
  const std::map<std::string, std::string>& fields() const { return fields_; }

  const char* what() const noexcept override { return message_.c_str(); }
  std::string json() const;

 private:
  int status_;
  std::string code_;
  std::string message_;
  std::optional<std::chrono::seconds> retry_after_;
  std::map<std::string, std::string> fields_;
};

}  // namespace reference::http
