#include "database/pool.h"

#include "http/problem.h"
#include "log.h"

namespace reference::database {

namespace {

http::Problem unavailable() {
  return {503, "database_unavailable", "could not reach the database", std::chrono::seconds(1)};
}

http::Problem busy() {
  return {503, "database_busy", "could not get hold of the database in time: too many requests",
          std::chrono::seconds(1)};
}

}  // namespace

Session::~Session() {
  if (connection_) pool_->give_back(std::move(connection_));
}

Rows Session::run(const std::string& sql, const Parameters& parameters) {
  try {
    return connection_->run(sql, parameters, deadline_);
  } catch (const Unreachable& error) {
    log("database: {}", error.what());
  } catch (const Refused& refused) {
    if (!refused.is_state_of_server()) throw;
    log("database: {}", refused.what());
  }
  pool_->suspect();
  throw unavailable();
}

Rows Session::run_script(const std::string& sql) {
  try {
    return connection_->run_script(sql, deadline_);
  } catch (const Unreachable& error) {
    log("database: {}", error.what());
    pool_->suspect();
    throw unavailable();
  }
}

void Session::renew(std::chrono::milliseconds limit) {
  deadline_ = pool_->deadline(limit);
}

Transaction::Transaction(Session& session) : session_(session) {
  session_.run("BEGIN");
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    session_.run("ROLLBACK");
  } catch (const std::exception&) {
    // The connection is thrown away, and the server rolls back.
  }
}

void Transaction::commit() {
  open_ = false;
  session_.run("COMMIT");
}

Pool::Pool(const PoolOptions& options) : options_(options) {
  if (!options_.unlimited) probe_ = std::thread([this] { probe(); });
}

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (probe_.joinable()) probe_.join();
}

Session Pool::session(std::chrono::milliseconds limit) {
  const Deadline until = deadline(limit);
  return {*this, borrow(until), until};
}

std::unique_ptr<Connection> Pool::borrow(const Deadline& deadline) {
  {
    std::unique_lock lock(mutex_);
    const auto may_go_on = [this] { return down_ || lent_ < options_.size; };
    if (!deadline.at()) {
      changed_.wait(lock, may_go_on);
    } else if (!changed_.wait_until(lock, *deadline.at(), may_go_on)) {
      throw busy();
    }
    if (down_) throw unavailable();
    ++lent_;
    while (!idle_.empty()) {
      std::unique_ptr<Connection> connection = std::move(idle_.back());
      idle_.pop_back();
      if (connection->clean()) return connection;
    }
  }
  try {
    return std::make_unique<Connection>(options_.url, deadline);
  } catch (const std::exception& error) {
    log("database: {}", error.what());
    give_back(nullptr);
    suspect();
    throw unavailable();
  }
}

void Pool::give_back(std::unique_ptr<Connection> connection) {
  const bool clean = connection && connection->clean();
  {
    const std::lock_guard lock(mutex_);
    --lent_;
    if (clean) idle_.push_back(std::move(connection));
  }
  changed_.notify_all();
}

void Pool::suspect() {
  {
    const std::lock_guard lock(mutex_);
    suspected_ = true;
  }
  changed_.notify_all();
}

void Pool::must_be_up() const {
  if (down_) throw unavailable();
}

bool Pool::answers(std::unique_ptr<Connection>& connection) const {
  const Deadline soon = Deadline::in(std::chrono::milliseconds(1000));
  try {
    if (!connection || !connection->clean()) {
      connection = std::make_unique<Connection>(options_.url, soon);
    }
    connection->run_script("SELECT 1", soon);
    return true;
  } catch (const std::exception&) {
    connection.reset();
    return false;
  }
}

void Pool::probe() {
  std::unique_ptr<Connection> connection;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    suspected_ = false;
    lock.unlock();
    const bool up = answers(connection);
    if (down_ == up) log("database: {}", up ? "is back" : "is down");
    if (down_ && up && options_.on_return) options_.on_return();
    lock.lock();
    down_ = !up;
    changed_.notify_all();
    if (up) {
      changed_.wait_for(lock, options_.probe, [this] { return stopping_ || suspected_; });
    } else {
      changed_.wait_for(lock, options_.probe / 2, [this] { return stopping_; });
    }
  }
}

}  // namespace reference::database
