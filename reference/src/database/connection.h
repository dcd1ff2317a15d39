#pragma once

// One connection to PostgreSQL, on which nothing waits longer than a deadline.
//
// libpq's own waits end when the server closes the connection, which a server that hangs never
// does. So everything here is asynchronous, with poll(). A connection on which a deadline has
// passed is broken: what it was doing may yet happen, or not.

#include <libpq-fe.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "database/deadline.h"

namespace reference::database {

/// The database could not be asked, or has not answered in time. The pool makes a 503 of it.
class Unreachable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The database answered that it cannot do this.
class Refused : public std::runtime_error {
 public:
  Refused(std::string sqlstate, std::string constraint, const std::string& message)
      : std::runtime_error(message),
        sqlstate_(std::move(sqlstate)),
        constraint_(std::move(constraint)) {}
  const std::string& sqlstate() const { return sqlstate_; }
  const std::string& constraint() const { return constraint_; }  ///< "" if it is none
  /// It is the server's state that stands in the way (shutting down, starting, a standby, no room
  /// for connections), not the statement.
  bool is_state_of_server() const;

 private:
  std::string sqlstate_;
  std::string constraint_;
};

/// What a statement gave: text, as PostgreSQL writes it.
class Rows {
 public:
  explicit Rows(PGresult* result) : result_(result, &::PQclear) {}
  std::size_t size() const { return static_cast<std::size_t>(::PQntuples(result_.get())); }
  bool empty() const { return size() == 0; }
  /// nullopt is NULL.
  std::optional<std::string_view> value(std::size_t row, std::size_t column) const;
  /// The same, for what cannot be NULL.
  std::string_view text(std::size_t row, std::size_t column) const {
    return value(row, column).value_or("");
  }
  /// Rows that a statement without a result inserted, updated or deleted.
  std::size_t changed() const;

 private:
  std::unique_ptr<PGresult, void (*)(PGresult*)> result_;
};

/// nullopt is NULL.
using Parameters = std::vector<std::optional<std::string>>;

class Connection {
 public:
  /// Throws Unreachable, or Refused if the server does not let us in.
  Connection(const std::string& url, const Deadline& deadline);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Runs one statement, prepared on its first use. Throws Unreachable or Refused.
  Rows run(const std::string& sql, const Parameters& parameters, const Deadline& deadline);
  /// Runs any number of statements without parameters; the rows of the last one.
  Rows run_script(const std::string& sql, const Deadline& deadline);
  /// It may be used: it has not failed, the server has not closed it, no transaction is open.
  bool clean() const;

 private:
  void connect(const Deadline& deadline);
  void await(bool writing, const Deadline& deadline);
  Rows finish(const Deadline& deadline);
  const std::string& prepared(const std::string& sql, const Deadline& deadline);
  [[noreturn]] void fail();
  std::unique_ptr<PGconn, void (*)(PGconn*)> connection_;
  std::unordered_map<std::string, std::string> prepared_;
  bool broken_ = false;
};

}  // namespace reference::database
