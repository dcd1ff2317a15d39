#include "auth/jwks_cache.h"

#include <algorithm>
#include <stdexcept>

#include "http/problem.h"
#include "log.h"

namespace reference::auth {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds longest_pause = std::chrono::seconds(30);
constexpr milliseconds longest_wait = std::chrono::seconds(1);

std::shared_ptr<const Key> key_in(const KeySet& keys, std::string_view id) {
  const auto found = keys.find(id);
  return found == keys.end() ? nullptr : found->second;
}

[[noreturn]] void no_keys() {
  throw http::Problem{503, "keys_unavailable",
                      "the token issuer's keys could not be fetched; try again soon",
                      std::chrono::seconds(1)};
}

}  // namespace

JwksCache::JwksCache(JwksOptions options) : options_(std::move(options)) {
  if (options_.max_stale < options_.refresh) {
    throw std::invalid_argument("JWKS_MAX_STALE cannot be shorter than JWKS_REFRESH");
  }
  options_.retry = std::min(options_.retry, options_.refresh);
  pause_ = options_.retry;
  if (!options_.cached) return;
  fetching_ = true;
  refresh_once();
  thread_ = std::thread([this] { run(); });
}

JwksCache::~JwksCache() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  fetched_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const Key> JwksCache::look_up(std::string_view id) const {
  if (keys_.empty() || Clock::now() - keys_from_ > options_.max_stale) no_keys();
  return key_in(keys_, id);
}

std::shared_ptr<const Key> JwksCache::known(std::string_view id) {
  const std::lock_guard lock(mutex_);
  return look_up(id);
}

bool JwksCache::may_ask_again() const {
  return fetching_ || Clock::now() - last_attempt_ >= options_.unknown_pause;
}

std::shared_ptr<const Key> JwksCache::find(std::string_view id) {
  if (!options_.cached) return find_uncached(id);
  std::unique_lock lock(mutex_);
  if (std::shared_ptr<const Key> key = look_up(id)) return key;
  if (!may_ask_again() || waiting_ >= most_waiting) return nullptr;
  if (!fetching_) {
    next_attempt_ = Clock::now();
    wake_.notify_one();
  }
  ++waiting_;
  const std::uint64_t seen = attempts_ended_;
  fetched_.wait_for(lock, longest_wait, [&] { return stopping_ || attempts_ended_ > seen; });
  --waiting_;
  return look_up(id);
}

std::shared_ptr<const Key> JwksCache::find_uncached(std::string_view id) {
  KeySet keys;
  try {
    keys = read_key_set(fetch(options_.url, options_.limits, stopping_));
  } catch (const std::runtime_error&) {
    no_keys();
  }
  return key_in(keys, id);
}

/// One attempt; fetching_ is set by the caller, under the lock.
void JwksCache::refresh_once() {
  const Clock::time_point begin = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    last_attempt_ = begin;
  }
  KeySet keys;
  std::string reason;
  try {
    keys = read_key_set(fetch(options_.url, options_.limits, stopping_));
  } catch (const std::exception& failure) {
    reason = failure.what();
  }
  const std::lock_guard lock(mutex_);
  const bool failed = keys.empty();
  if (failed) {
    next_attempt_ = Clock::now() + pause_;
    pause_ = std::min({pause_ * 2, longest_pause, options_.refresh});
  } else {
    keys_.swap(keys);
    keys_from_ = begin;
    next_attempt_ = begin + options_.refresh;
    pause_ = options_.retry;
  }
  if (failed && !failing_ && !stopping_) {
    log("jwks: could not fetch {}: {}", options_.url, reason);
  } else if (!failed && failing_) {
    log("jwks: {} answers again", options_.url);
  }
  failing_ = failed;
  fetching_ = false;
  ++attempts_ended_;
  fetched_.notify_all();
}

void JwksCache::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (Clock::now() < next_attempt_) {
      // A copy: the wait must not read next_attempt_ while a request changes it.
      const Clock::time_point until = next_attempt_;
      wake_.wait_until(lock, until);
      continue;
    }
    fetching_ = true;
    lock.unlock();
    refresh_once();
    lock.lock();
  }
}

}  // namespace reference::auth
