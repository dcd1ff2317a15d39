#pragma once

// The moment until which somebody is prepared to wait.

#include <algorithm>
#include <chrono>
#include <optional>

namespace reference::database {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline in(std::chrono::milliseconds limit) { return Deadline(Clock::now() + limit); }
  static Deadline never() { return Deadline(std::nullopt); }

  bool over() const { return at_ && Clock::now() >= *at_; }
  /// What is left, as poll() wants it: milliseconds, rounded up; -1 is forever.
  int left() const {
    if (!at_) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*at_ - Clock::now()).count();
    return static_cast<int>(std::clamp<long>(left, 0, 1 << 30));
  }
  std::optional<Clock::time_point> at() const { return at_; }

 private:
  explicit Deadline(std::optional<Clock::time_point> at) : at_(at) {}
  std::optional<Clock::time_point> at_;
};

}  // namespace reference::database
