#pragma once

// Connections to PostgreSQL, shared by all requests, so that a database that is down or hangs costs
// each request a bounded time, and then none at all.
//
// A session is a connection lent to one request, for a bounded time: getting it, and all statements
// on it, must be done by then. A probe in the background asks the database every second, and at
// once when a request has failed; while the probe fails, sessions are refused at once. Nothing has
// to be restarted when the database is back.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "database/connection.h"

namespace reference::database {

struct PoolOptions {
  std::string url;
  std::size_t size = 16;
  std::chrono::milliseconds limit{2000};  ///< the life of a session
  std::chrono::milliseconds probe{1000};  ///< between two questions of the probe, half while down
  /// Called when the database is back: it may be another one, restored to an earlier moment.
  std::function<void()> on_return;
  /// For game days (REFERENCE_BREAK=no-database-timeout): waits forever.
  bool unlimited = false;
};

class Pool;

/// A connection on loan. Goes back with the destructor, or is thrown away if it is not as it was.
/// Whatever goes wrong is thrown as http::Problem 503 with Retry-After, or as Refused if it is the
/// statement's fault.
class Session {
 public:
  Session(Session&&) = default;
  Session& operator=(Session&&) = delete;
  ~Session();

  Rows run(const std::string& sql, const Parameters& parameters = {});
  /// Any number of statements without parameters.
  Rows run_script(const std::string& sql);
  /// From now on, `limit` is left: for work in steps, each of which has its limit.
  void renew(std::chrono::milliseconds limit);

 private:
  friend class Pool;
  Session(Pool& pool, std::unique_ptr<Connection> connection, const Deadline& deadline)
      : pool_(&pool), connection_(std::move(connection)), deadline_(deadline) {}
  Pool* pool_;
  std::unique_ptr<Connection> connection_;
  Deadline deadline_;
};

/// BEGIN to COMMIT. Without commit() everything is rolled back.
class Transaction {
 public:
  explicit Transaction(Session& session);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  Rows run(const std::string& sql, const Parameters& parameters = {}) {
    return session_.run(sql, parameters);
  }
  void commit();

 private:
  Session& session_;
  bool open_ = true;
};

class Pool {
 public:
  explicit Pool(const PoolOptions& options);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Throws http::Problem 503 if there is none in time.
  Session session() { return session(options_.limit); }
  Session session(std::chrono::milliseconds limit);
  /// Throws http::Problem 503 while the database is known to be down, without asking it.
  void must_be_up() const;

 private:
  friend class Session;
  Deadline deadline(std::chrono::milliseconds limit) const {
    return options_.unlimited ? Deadline::never() : Deadline::in(limit);
  }
  std::unique_ptr<Connection> borrow(const Deadline& deadline);
  void give_back(std::unique_ptr<Connection> connection);
  /// Lets the probe find out how the database is.
  void suspect();
  void probe();
  bool answers(std::unique_ptr<Connection>& connection) const;

  PoolOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Connection>> idle_;
  std::size_t lent_ = 0;
  bool suspected_ = false;
  std::atomic<bool> down_ = false;
  bool stopping_ = false;
  std::thread probe_;
};

}  // namespace reference::database
