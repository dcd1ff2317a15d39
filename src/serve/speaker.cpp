#include "serve/speaker.h"

#include <condition_variable>

#include "base/error.h"
#include "serve/meeting.h"

namespace holdfast::serve {

namespace {

using base::Code;
using base::Error;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// How long alarms wait for a repository to say whether somebody else tells them.
constexpr seconds first_answer_within{5};
constexpr seconds ask_again_after{10};

void pause(const std::stop_token& stop, milliseconds time) {
  std::mutex mutex;
  std::condition_variable_any woken;
  std::unique_lock lock(mutex);
  woken.wait_for(lock, stop, time, [] { return false; });
}

std::string directory_of(const repository::ClusterPlace& place) {
  return place.directory() + "/alarms";
}

}  // namespace

std::optional<std::string> read_told(const repository::Repository& repository,
                                     const repository::ClusterPlace& place) {
  const std::vector<std::string> names = repository.store().names(directory_of(place));
  if (names.empty()) return std::nullopt;
  const auto bytes = repository.store().get(directory_of(place) + "/" + names.back());
  return bytes ? std::optional(std::string(base::text(*bytes))) : std::nullopt;
}

void write_told(const repository::Repository& repository, const repository::ClusterPlace& place,
                std::uint64_t lease, std::uint64_t count, const std::string& told) {
  store::ObjectStore& store = repository.store();
  const std::string directory = directory_of(place);
  const std::string name = fmt::format("{:010}-{:010}", lease, count);
  [[maybe_unused]] const bool fresh = store.put(directory + "/" + name, base::view(told));
  for (const std::string& each : store.names(directory)) {
    if (each < name) store.remove(directory + "/" + each);
  }
}

Speaker::Speaker(std::string cluster, Settings settings)
    : cluster_(std::move(cluster)), settings_(std::move(settings)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Speaker::await_first_answer(const std::stop_token& stop) const {
  const auto limit = std::chrono::steady_clock::now() + first_answer_within;
  while (!answered_ && !stop.stop_requested() && std::chrono::steady_clock::now() < limit) {
    pause(stop, milliseconds(50));
  }
}

std::optional<std::string> Speaker::take_over() {
  const std::lock_guard lock(mutex_);
  return std::exchange(found_, std::nullopt);
}

void Speaker::leave(std::string told) {
  const std::lock_guard lock(mutex_);
  told_ = std::move(told);
}

void Speaker::update(Settings settings) {
  const std::lock_guard lock(mutex_);
  settings_ = std::move(settings);
  ++generation_;
}

std::uint64_t Speaker::generation() const {
  const std::lock_guard lock(mutex_);
  return generation_;
}

void Speaker::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    try {
      hold(stop);
    } catch (const std::exception& error) {
      const auto* known = dynamic_cast<const Error*>(&error);
      listens_ = known != nullptr && known->code() == Code::busy;
      answered_ = true;
      pause(stop, ask_again_after);
    }
  }
  over_ = true;
}

/// Until it is to stop, the settings change, or (by throwing) the lease is lost.
void Speaker::hold(const std::stop_token& stop) {
  const std::uint64_t begun = generation();
  Settings settings;
  {
    const std::lock_guard lock(mutex_);
    settings = settings_;
  }
  std::unique_ptr<repository::Lease> lease;
  std::optional<std::string> before;
  const auto meeting = meet(*settings, cluster_, [&](const Meeting& at) {
    auto taken = std::make_unique<repository::Lease>(at.repository(), at.place, "serve-alarms");
    before = read_told(at.repository(), at.place);
    lease = std::move(taken);
  });
  // It refers to what `meeting` has, and must end before it.
  const std::unique_ptr<repository::Lease> held = std::move(lease);
  {
    const std::lock_guard lock(mutex_);
    if (before) found_ = std::move(before);
    told_.reset();
  }
  listens_ = false;
  answered_ = true;
  std::uint64_t count = 0;
  std::string left;
  for (bool last = false; !last;) {
    pause(stop, milliseconds(200));
    last = stop.stop_requested() || generation() != begun;
    held->check();
    std::optional<std::string> told;
    {
      const std::lock_guard lock(mutex_);
      told = told_;
    }
    if (!told || *told == left) continue;
    write_told(meeting->repository(), meeting->place, held->number(), ++count, *told);
    left = *told;
  }
}

}  // namespace holdfast::serve
