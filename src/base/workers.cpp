#include "base/workers.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

namespace holdfast::base {

namespace {

std::atomic<int> signals{0};
/// Of the steady clock, in its own unit; the greatest there is: no limit.
constexpr auto no_limit = std::chrono::steady_clock::time_point::max();
std::atomic<std::chrono::steady_clock::time_point> limit_end{no_limit};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler writes it");

void on_signal(int) {
  if (signals.fetch_add(1) >= 2) ::_exit(info(Code::interrupted).exit_status);
}

}  // namespace

unsigned default_workers() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1U, static_cast<unsigned>(CPU_COUNT(&set)));
}

void run_workers(unsigned count, const std::function<void(unsigned, std::stop_token)>& work) {
  std::mutex mutex;
  std::condition_variable ended;
  std::exception_ptr first;
  unsigned running = count;
  std::stop_source stop;
  {
    std::vector<std::jthread> threads;
    threads.reserve(count);
    for (unsigned index = 0; index < count; ++index) {
      threads.emplace_back([&, index] {
        try {
          work(index, stop.get_token());
        } catch (...) {
          {
            const std::lock_guard lock(mutex);
            if (!first) first = std::current_exception();
          }
          stop.request_stop();  // only now: what others throw because of it is not the reason
        }
        const std::lock_guard lock(mutex);
        --running;
        ended.notify_all();
      });
    }
    std::unique_lock lock(mutex);
    while (!ended.wait_for(lock, std::chrono::milliseconds(50), [&] { return running == 0; })) {
      if (interrupted()) stop.request_stop();
    }
  }
  if (first) std::rethrow_exception(first);
  stop_if_interrupted();
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() {
  return signals.load() > 0 || std::chrono::steady_clock::now() >= limit_end.load();
}

TimeLimit::TimeLimit(std::chrono::microseconds limit) {
  limit_end = std::chrono::steady_clock::now() + limit;
}
TimeLimit::~TimeLimit() {
  limit_end = no_limit;
}
bool TimeLimit::is_over() const {
  return signals.load() == 0 && std::chrono::steady_clock::now() >= limit_end.load();
}

void stop_if_interrupted() {
  if (interrupted()) {
    throw Error(Code::interrupted, "stopped by a signal; nothing was left half done");
  }
}

}  // namespace holdfast::base
