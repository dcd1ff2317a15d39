#pragma once

// One thread that waits for many sockets and moments at once (epoll).
//
// Whatever it calls runs in its thread, one after the other, so that what belongs to a loop needs
// no locks. Only call() may be used from outside. What it calls must not throw and must not wait.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/file.h"

namespace holdfast::service {

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using OnEvents = std::function<void(std::uint32_t)>;
  /// Names a watched descriptor; 0 names none.
  using Watch = std::uint64_t;
  /// Names a moment that was asked for.
  using Timer = std::pair<Clock::time_point, std::uint64_t>;

  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Runs `work` in the loop and waits until it is done; throws what it throws.
  void call(const std::function<void()>& work);

  // The rest only in the loop's own thread.
  /// Calls `on_events` whenever one of `events` (epoll's) is so, until unwatch().
  Watch watch(const base::Fd& fd, std::uint32_t events, OnEvents on_events);
  void change(Watch watch, const base::Fd& fd, std::uint32_t events);
  /// Nothing is called for it any more, not even for what has happened already.
  void unwatch(Watch watch, const base::Fd& fd);
  Timer at(Clock::time_point when, std::function<void()> work);
  void cancel(const Timer& timer);

 private:
  void run();
  void run_called();
  void run_timers();
  int wait_limit() const;

  base::Fd epoll_;
  base::Fd wake_;
  std::uint64_t next_ = 1;
  std::unordered_map<Watch, std::shared_ptr<OnEvents>> watched_;
  std::map<Timer, std::function<void()>> timers_;
  std::mutex mutex_;
  std::vector<std::function<void()>> called_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace holdfast::service
