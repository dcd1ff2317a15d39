#pragma once

// Answers kept in Redis, which may vanish at any moment: what is not there is made from the
// database.
//
// What is kept belongs to an organisation and a table, and all of it is forgotten at once when a
// row of that table changes (one Redis hash for each). Promises:
// - Whoever reads after a change was answered sees it. A reader that had looked into the database
//   before the change cannot put what it saw into the cache afterwards: it needs the lease that it
//   found there before it looked, and forgetting takes all leases away.
// - When Redis fails once (down, slow, hanging, restarted), it is not asked by requests any more; a
//   probe in the background waits for it, empties it (what was to be forgotten meanwhile was not,
//   and an old snapshot may have been loaded), and only then is it used again. So it is at each
//   start. The Redis database must belong to the service alone.
// - Several processes may share it. One that alone cannot reach Redis cannot tell the others what
// has
//   changed; they may then read what is up to `ttl` old.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cache/redis_connection.h"

namespace reference::cache {

struct CacheOptions {
  std::string url;  ///< empty: there is no cache
  std::chrono::milliseconds limit{50};
  std::chrono::milliseconds probe{250};
  std::chrono::seconds ttl{60};
  /// For game days (REFERENCE_BREAK=cache-errors): failures of Redis are passed on to clients.
  bool pass_errors_on = false;
};

class Cache {
 public:
  explicit Cache(const CacheOptions& options);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  struct Answer {
    std::string value;
    bool hit = false;
  };
  /// What is kept as `name`; otherwise what `make` returns, kept for the next time. `make` throws
  /// to say that there is nothing to keep.
  Answer through(std::string_view organisation, std::string_view table, std::string_view name,
                 const std::function<std::string()>& make);
  /// To be called after each commit that changed rows of the table, before it is answered.
  void forget(std::string_view organisation, std::string_view table);
  /// Nothing that is kept may be true any more: it is not read again.
  void forget_all();
  /// Redis is there and used.
  bool working();

 private:
  struct Lent {
    std::unique_ptr<RedisConnection> connection;
    std::uint64_t generation = 0;
  };
  /// Without a connection if Redis is not used at the moment.
  Lent borrow(bool to_forget = false);
  void give_back(Lent lent);
  void fail(const std::exception& error);
  std::string lease(RedisConnection& redis, const std::string& key);
  void keep(const std::string& key, std::string_view lease, std::string_view name,
            const std::string& value);
  void probe();

  CacheOptions options_;
  RedisAddress address_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<RedisConnection>> idle_;
  std::uint64_t generation_ = 0;  ///< counts failures: connections of before one are not used again
  std::uint64_t missed_ = 0;      ///< counts what was not forgotten meanwhile
  std::string run_id_;
  bool working_ = false;
  bool stopping_ = false;
  std::thread probe_;
};

}  // namespace reference::cache
