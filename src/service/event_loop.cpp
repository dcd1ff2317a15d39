#include "service/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <future>

#include "base/error.h"

namespace holdfast::service {

EventLoop::EventLoop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) base::fail_errno("wait for sockets", errno);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    base::fail_errno("wait for sockets", errno);
  }
  thread_ = std::thread([this] { run(); });
}

EventLoop::~EventLoop() {
  call([this] { ended_ = true; });
  thread_.join();
}

void EventLoop::call(const std::function<void()>& work) {
  if (std::this_thread::get_id() == thread_.get_id()) return work();
  std::promise<void> done;
  {
    const std::lock_guard lock(mutex_);
    called_.emplace_back([&] {
      try {
        work();
        done.set_value();
      } catch (...) {
        done.set_exception(std::current_exception());
      }
    });
  }
  ::eventfd_write(wake_.get(), 1);
  done.get_future().get();
}

EventLoop::Watch EventLoop::watch(const base::Fd& fd, std::uint32_t events, OnEvents on_events) {
  const Watch watch = next_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = watch;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
    base::fail_errno("wait for a socket", errno);
  }
  watched_.emplace(watch, std::make_shared<OnEvents>(std::move(on_events)));
  return watch;
}

void EventLoop::change(Watch watch, const base::Fd& fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = watch;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd.get(), &event);
}

void EventLoop::unwatch(Watch watch, const base::Fd& fd) {
  if (watched_.erase(watch) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
}

EventLoop::Timer EventLoop::at(Clock::time_point when, std::function<void()> work) {
  const Timer timer{when, next_++};
  timers_.emplace(timer, std::move(work));
  return timer;
}

void EventLoop::cancel(const Timer& timer) {
  timers_.erase(timer);
}

int EventLoop::wait_limit() const {
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - Clock::now();
  if (left <= Clock::duration::zero()) return 0;
  constexpr std::chrono::milliseconds longest = std::chrono::hours(1);
  // Rounded up: waking before the moment would only mean to ask again.
  return static_cast<int>(
      std::min(longest, std::chrono::ceil<std::chrono::milliseconds>(left)).count());
}

void EventLoop::run_timers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto work = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    work();
  }
}

void EventLoop::run_called() {
  eventfd_t count = 0;
  ::eventfd_read(wake_.get(), &count);
  std::vector<std::function<void()>> called;
  {
    const std::lock_guard lock(mutex_);
    called.swap(called_);
  }
  for (const auto& work : called) work();
}

void EventLoop::run() {
  std::array<epoll_event, 64> events;
  while (!ended_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait_limit());
    for (int index = 0; index < count; ++index) {
      const epoll_event& event = events[static_cast<std::size_t>(index)];
      if (event.data.u64 == 0) {
        run_called();
        continue;
      }
      const auto found = watched_.find(event.data.u64);
      if (found == watched_.end()) continue;
      const std::shared_ptr<OnEvents> on_events = found->second;  // it may unwatch itself
      (*on_events)(event.events);
    }
    run_timers();
  }
}

}  // namespace holdfast::service
