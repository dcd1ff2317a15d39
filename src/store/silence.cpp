#include "store/silence.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "store/object_store.h"

namespace holdfast::store {

namespace {

using Clock = std::chrono::steady_clock;

/// What every call looks for: the watch of this process, if it has one.
std::mutex registry_mutex;
std::shared_ptr<SilenceWatch::State> registry;

}  // namespace

struct Asking::Call {
  std::string root;
  Clock::time_point begun;
  std::chrono::milliseconds next;  ///< it is spoken of when it has lasted so long
  bool told = false;
};

struct SilenceWatch::State {
  std::chrono::milliseconds limit;
  std::function<void(const std::string&)> say;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::list<Asking::Call> calls;
  std::jthread thread;

  void look() {
    const auto now = Clock::now();
    for (Asking::Call& call : calls) {
      const auto lasted = std::chrono::duration_cast<std::chrono::milliseconds>(now - call.begun);
      if (lasted < call.next) continue;
      call.next = lasted * 2;
      call.told = true;
      say(fmt::format("the repository at {} has not answered for {}: waiting for it", call.root,
                      base::to_string_short(base::Microseconds(lasted))));
    }
  }

  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex);
    while (!stop.stop_requested()) {
      changed.wait_for(lock, stop, limit / 4, [] { return false; });
      look();
    }
  }
};

SilenceWatch::SilenceWatch(std::chrono::milliseconds limit,
                           std::function<void(const std::string&)> say)
    : state_(std::make_shared<State>()) {
  state_->limit = limit;
  state_->say = std::move(say);
  state_->thread =
      std::jthread([state = state_.get()](const std::stop_token& stop) { state->run(stop); });
  const std::lock_guard lock(registry_mutex);
  registry = state_;
}

SilenceWatch::~SilenceWatch() {
  {
    const std::lock_guard lock(registry_mutex);
    registry.reset();
  }
  state_->thread.request_stop();
  state_->thread.join();
}

Asking::Asking(const base::fs::path& root) {
  {
    const std::lock_guard lock(registry_mutex);
    state_ = registry;
  }
  if (!state_) return;
  const std::lock_guard lock(state_->mutex);
  call_ = state_->calls.insert(state_->calls.end(),
                               {root.string(), Clock::now(), state_->limit, false});
}

Asking::~Asking() {
  if (!state_) return;
  const std::lock_guard lock(state_->mutex);
  if (call_->told) state_->say(fmt::format("the repository at {} answers again", call_->root));
  state_->calls.erase(call_);
}

std::vector<bool> answering(const std::vector<std::string>& urls, std::chrono::milliseconds limit) {
  std::vector<base::Fd> pipes;
  std::vector<pid_t> children;
  for (const std::string& url : urls) {
    const base::fs::path directory = directory_of(url);
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) base::fail_errno("make a pipe", errno);
    const pid_t child = ::fork();
    if (child == 0) {
      // Only what may be done in the child of a process with threads. Whoever waits for the end of
      // our output must not wait for this one.
      for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) ::close(stream);
      struct stat ignored {};
      ::stat(directory.c_str(), &ignored);
      ::_exit(0);
    }
    const int reason = errno;
    ::close(ends[1]);
    pipes.emplace_back(ends[0]);
    children.push_back(child);
    if (child < 0) base::fail_errno("start a process", reason);
  }
  const auto until = Clock::now() + limit;
  std::vector<bool> answers;
  for (std::size_t i = 0; i < urls.size(); ++i) {
    pollfd ended{pipes[i].get(), POLLIN, 0};
    int ready = 0;
    do {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      ready = ::poll(&ended, 1, static_cast<int>(std::max<std::int64_t>(0, left)));
    } while (ready < 0 && errno == EINTR);
    answers.push_back(ready == 1);
    if (ready == 1) ::waitpid(children[i], nullptr, 0);
  }
  return answers;
}

}  // namespace holdfast::store
