#pragma once

// One job of a daemon, in a thread of its own: waits until it is due, takes its turn, runs the
// command, notes how it ended, and raises or ends its alarm. So a job that hangs delays no other
// one (TRAPS DS1).
//
// Waiting goes by a clock that nobody sets; what is due by the wall clock, which is read again each
// second. A run that failed for a reason that may pass is tried again, at growing intervals, until
// the next one takes its place.

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

#include "base/process.h"
#include "serve/alarms.h"
#include "serve/jobs.h"
#include "serve/state.h"

namespace holdfast::serve {

/// What all workers use.
struct Surroundings {
  State& state;
  Alarms& alarms;
  base::fs::path program;
  std::string host;
};

class Worker {
 public:
  using Clock = std::chrono::steady_clock;
  using Settings = std::shared_ptr<const operations::Configuration>;

  Worker(Surroundings surroundings, Job job, Settings settings);
  ~Worker() = default;

  /// From the next run on; what runs all the time is begun again.
  void update(Job job, Settings settings);
  /// Asks it to end: a child is ended as well.
  void stop() { thread_.request_stop(); }
  bool over() const { return over_; }
  /// Its command does.
  bool runs() const { return running_; }

  struct View {
    std::string name;
    bool running = false;  ///< its command is
    /// How long it has been asking the repository whose turn it is.
    base::Microseconds claiming{};
    std::optional<base::Timestamp> next;
    std::uint64_t successes = 0;  ///< runs that ended well since the daemon began
    std::uint64_t failures = 0;
  };
  View view() const;

 private:
  struct Work {
    Job job;
    Settings settings;
    std::uint64_t generation = 0;
  };
  struct Claim;
  Work work() const;
  void run(const std::stop_token& stop);
  void look(const Work& work, const std::stop_token& stop);
  void do_run(const Work& work, base::Timestamp slot, const std::stop_token& stop);
  void keep_running(const Work& work, const std::stop_token& stop);
  std::optional<base::Timestamp> due(const Work& work) const;
  std::unique_ptr<Claim> claim(const Work& work, base::Timestamp slot);
  base::Command command(const Work& work) const;
  base::fs::path log(const Work& work) const;
  void note(const Work& work, std::optional<base::Timestamp> slot, std::optional<int> status);
  void alarm(const Work& work, const std::string& what);
  void alarm_over(const Work& work);
  void try_later(std::chrono::seconds least, std::chrono::seconds most);

  Surroundings surroundings_;
  mutable std::mutex mutex_;
  Work work_;
  std::atomic<bool> running_{false};
  std::atomic<Clock::rep> claiming_since_{0};
  Clock::time_point not_before_{};  ///< of the next try
  std::chrono::seconds pause_{0};
  std::uint64_t generation_ = 0;  ///< of the work that these two are about
  std::atomic<std::uint64_t> successes_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<bool> over_{false};
  std::jthread thread_;
};

}  // namespace holdfast::serve
