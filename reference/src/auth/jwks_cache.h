#pragma once

// The issuer's keys, kept at hand so that requests do not depend on the issuer.
//
// - A thread of its own fetches them every `refresh`, long before they get too old; after a failure
//   it tries again after `retry`, then ever less often up to half a minute.
// - While the issuer is down, the keys that there are go on serving, up to `max_stale` after the
//   fetch that brought them; from then on, and before the first fetch succeeded, nothing is
//   verified: http::Problem 503.
// - A fetch replaces the keys only by a document with at least one usable key; so a broken or empty
//   answer counts as an outage, not as the removal of all keys. A key that is missing from a good
//   answer is gone at once.
// - A kid that is not known may be new: the issuer is asked again, but at most once in
//   `unknown_pause`, counted from whatever fetch came last; two requests may wait for the answer,
//   a second at most, others are told at once that there is no such key.
// - Who asks for a known key never waits for the network.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "auth/fetch.h"
#include "auth/key_set.h"

namespace reference::auth {

struct JwksOptions {
  std::string url;
  std::chrono::milliseconds refresh = std::chrono::minutes(5);
  std::chrono::milliseconds max_stale = std::chrono::hours(24);
  std::chrono::milliseconds retry = std::chrono::seconds(1);
  std::chrono::milliseconds unknown_pause = std::chrono::seconds(10);
  FetchLimits limits = {};
  /// False breaks the promises above on purpose (REFERENCE_BREAK=no-jwks-cache): each request
  /// fetches, and fails with 503 if it cannot.
  bool cached = true;
};

class JwksCache {
 public:
  /// Fetches once before it returns; that this fails is not an error. Throws std::invalid_argument
  /// if `max_stale` is shorter than `refresh`.
  explicit JwksCache(JwksOptions options);
  ~JwksCache();
  JwksCache(const JwksCache&) = delete;
  JwksCache& operator=(const JwksCache&) = delete;

  /// The key of this id; null if the issuer has none, as far as is known.
  std::shared_ptr<const Key> find(std::string_view id);
  /// The same without asking the issuer about an unknown one.
  std::shared_ptr<const Key> known(std::string_view id);
  bool is_cached() const { return options_.cached; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int most_waiting = 2;

  std::shared_ptr<const Key> look_up(std::string_view id) const;
  bool may_ask_again() const;
  std::shared_ptr<const Key> find_uncached(std::string_view id);
  void refresh_once();
  void run();

  JwksOptions options_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;     // the thread: there is something to do
  std::condition_variable fetched_;  // requests: a fetch has ended
  KeySet keys_;
  Clock::time_point keys_from_;  // when the fetch began that brought keys_
  Clock::time_point last_attempt_;
  Clock::time_point next_attempt_;
  std::chrono::milliseconds pause_;  // before the next attempt, if this one fails
  std::uint64_t attempts_ended_ = 0;
  bool fetching_ = false;
  bool failing_ = false;
  int waiting_ = 0;
  std::thread thread_;
};

}  // namespace reference::auth
