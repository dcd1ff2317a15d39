#include "cache/cache.h"

#include <fmt/format.h>

#include <random>

#include "http/problem.h"
#include "log.h"

namespace reference::cache {

namespace {

/// In each hash: whoever has read it may put answers in as long as it stays. No answer is named so.
constexpr std::string_view lease_field = "";
constexpr std::size_t largest = 256UL << 10;
constexpr std::size_t longest_name = 512;

constexpr std::string_view keep_script =
    "if redis.call('HGET', KEYS[1], '') == ARGV[1] then "
    "redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end return 1";

std::string key_of(std::string_view organisation, std::string_view table) {
  return fmt::format("{}/{}", table, organisation);
}

std::string random_text() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}", generator());
}

http::Problem passed_on() {
  return {502, "cache_error", "could not read the cache"};
}

}  // namespace

Cache::Cache(const CacheOptions& options) : options_(options) {
  if (options_.url.empty()) return;
  address_ = parse_redis_url(options_.url);
  probe_ = std::thread([this] { probe(); });
}

Cache::~Cache() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (probe_.joinable()) probe_.join();
}

bool Cache::working() {
  const std::lock_guard lock(mutex_);
  return working_;
}

Cache::Lent Cache::borrow(bool to_forget) {
  Lent lent;
  {
    const std::lock_guard lock(mutex_);
    if (!working_) {
      // Whoever is emptying Redis now must do it again.
      if (to_forget) ++missed_;
      return lent;
    }
    lent.generation = generation_;
    if (!idle_.empty()) {
      lent.connection = std::move(idle_.back());
      idle_.pop_back();
      return lent;
    }
  }
  lent.connection = std::make_unique<RedisConnection>(address_, options_.limit);
  const std::lock_guard lock(mutex_);
  if (lent.connection->run_id() != run_id_) throw RedisError("Redis was started anew");
  return lent;
}

void Cache::give_back(Lent lent) {
  const std::lock_guard lock(mutex_);
  if (lent.generation == generation_) idle_.push_back(std::move(lent.connection));
}

void Cache::fail(const std::exception& error) {
  if (working()) log("cache: {}", error.what());
  forget_all();
}

void Cache::forget_all() {
  {
    const std::lock_guard lock(mutex_);
    working_ = false;
    ++generation_;
    ++missed_;
    idle_.clear();
  }
  changed_.notify_all();
}

std::string Cache::lease(RedisConnection& redis, const std::string& key) {
  const std::string fresh = random_text();
  const std::string ttl = std::to_string(options_.ttl.count());
  const auto replies = redis.run_all({{"HSETNX", key, lease_field, fresh},
                                      {"EXPIRE", key, ttl, "NX"},
                                      {"HGET", key, lease_field}});
  const redisReply& found = *replies.back();
  return found.type == REDIS_REPLY_STRING ? std::string(found.str, found.len) : fresh;
}

Cache::Answer Cache::through(std::string_view organisation, std::string_view table,
                             std::string_view name, const std::function<std::string()>& make) {
  if (options_.url.empty() || name.size() > longest_name) return {make()};
  const std::string key = key_of(organisation, table);
  std::string lease_found;
  try {
    if (Lent lent = borrow(); lent.connection) {
      const auto reply = lent.connection->run({"HMGET", key, name, lease_field});
      if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        throw RedisError("Redis has answered something else");
      }
      const redisReply& value = *reply->element[0];
      const redisReply& held = *reply->element[1];
      const bool hit = value.type == REDIS_REPLY_STRING;
      if (!hit) {
        lease_found = held.type == REDIS_REPLY_STRING ? std::string(held.str, held.len)
                                                      : lease(*lent.connection, key);
      }
      give_back(std::move(lent));
      if (hit) return {std::string(value.str, value.len), true};
    } else if (options_.pass_errors_on) {
      throw passed_on();
    }
  } catch (const RedisError& error) {
    fail(error);
    if (options_.pass_errors_on) throw passed_on();
  }
  Answer made{make()};
  if (!lease_found.empty() && made.value.size() <= largest) {
    keep(key, lease_found, name, made.value);
  }
  return made;
}

void Cache::keep(const std::string& key, std::string_view lease, std::string_view name,
                 const std::string& value) {
  try {
    if (Lent lent = borrow(); lent.connection) {
      lent.connection->run({"EVAL", keep_script, "1", key, lease, name, value});
      give_back(std::move(lent));
    }
  } catch (const RedisError& error) {
    fail(error);
  }
}

void Cache::forget(std::string_view organisation, std::string_view table) {
  if (options_.url.empty()) return;
  try {
    if (Lent lent = borrow(true); lent.connection) {
      lent.connection->run({"DEL", key_of(organisation, table)});
      give_back(std::move(lent));
    }
  } catch (const RedisError& error) {
    // Emptying Redis begins after this, and so after the change.
    fail(error);
  }
}

void Cache::probe() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (working_) {
      changed_.wait(lock, [this] { return stopping_ || !working_; });
      continue;
    }
    const std::uint64_t missed = missed_;
    lock.unlock();
    std::string run_id;
    try {
      RedisConnection redis(address_, options_.limit);
      redis.run({"FLUSHDB", "ASYNC"});
      run_id = redis.run_id();
    } catch (const RedisError&) {
      // It is asked again in a moment.
    }
    lock.lock();
    if (!run_id.empty() && missed == missed_) {
      run_id_ = run_id;
      working_ = true;
      log("cache: is emptied and used");
    } else if (run_id.empty()) {
      changed_.wait_for(lock, options_.probe, [this] { return stopping_; });
    }
  }
}

}  // namespace reference::cache
