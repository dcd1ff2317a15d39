#pragma once

// One connection to Redis, on which each command takes a bounded time. After an error it is of no
// use any more: what was asked may yet be answered.

#include <hiredis.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace reference::cache {

/// Redis could not be asked, has not answered in time, or has answered with an error.
class RedisError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Where Redis is: redis://[:PASSWORD@]HOST[:PORT][/DATABASE] or unix:/PATH. Throws
/// std::runtime_error (without the password) for anything else.
struct RedisAddress {
  std::string host;
  int port = 6379;
  std::string path;  ///< of a socket; then there is no host
  std::string password;
  int database = 0;
};
RedisAddress parse_redis_url(const std::string& url);

class RedisConnection {
 public:
  /// Throws RedisError. `limit` holds for connecting and for each command.
  RedisConnection(const RedisAddress& address, std::chrono::milliseconds limit);

  using Reply = std::unique_ptr<redisReply, void (*)(void*)>;
  using Command = std::vector<std::string_view>;
  /// Throws RedisError.
  Reply run(const Command& command) { return std::move(run_all({command}).back()); }
  /// Sends all commands at once: they take one round trip.
  std::vector<Reply> run_all(const std::vector<Command>& commands);
  /// Another one than before: Redis was started anew, perhaps with data of long ago.
  const std::string& run_id() const { return run_id_; }

 private:
  [[noreturn]] void fail() const;
  std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
  std::string run_id_;
};

}  // namespace reference::cache
