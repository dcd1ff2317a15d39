#pragma once

// Doing one job with several threads, and stopping when asked.

#include <chrono>
#include <functional>
#include <stop_token>

namespace holdfast::base {

/// How many threads to use where nothing else is said: the processors that we may run on.
unsigned default_workers();

/// Runs `work(index, stop)` on `count` threads and waits for all. When one throws, the others are
/// asked to stop, and the first exception is thrown here. Also throws Error(interrupted) if a
/// signal came; `work` should look at `stop` between pieces, which then is set as well.
void run_workers(unsigned count, const std::function<void(unsigned, std::stop_token)>& work);

/// From now on SIGINT and SIGTERM only set a flag (and end the process when they come three times).
void catch_interrupts();
bool interrupted();
/// Throws Error(interrupted) if a signal came.
void stop_if_interrupted();

/// While it lives, what looks for signals is stopped as by one once the time is over. One at a
/// time.
class TimeLimit {
 public:
  explicit TimeLimit(std::chrono::microseconds limit);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  bool is_over() const;
};

}  // namespace holdfast::base
