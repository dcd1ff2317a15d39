#pragma once

// A server that hangs must not hang us, where we only want to know whether it is well.
//
// While a TimeLimit lives, connecting and waiting for answers in this thread end at its moment,
// with Error(unreachable). What cannot be bounded is looking up the name of a host.

#include <chrono>
#include <optional>

namespace holdfast::postgres {

class TimeLimit {
 public:
  explicit TimeLimit(std::chrono::milliseconds limit);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
};

/// How long may still be waited in this thread, in milliseconds, at most `most`. Throws
/// Error(unreachable) when there is nothing left.
int time_left(int most);
bool is_time_limited();

}  // namespace holdfast::postgres
