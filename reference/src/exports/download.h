#pragma once

// The rows of an organisation as CSV, piece by piece, as they were at one moment.
//
// A cursor in a transaction of its own: memory holds a few hundred rows, whatever the table has.
// It holds a connection to the database for as long as the client reads, but no longer than
// `longest`.

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "database/pool.h"
#include "http/message.h"

namespace reference::exports {

constexpr std::chrono::minutes longest{10};

class Download {
 public:
  /// Reads the first rows, so that a database that is away is noticed before anything is answered.
  /// `kind` is buildings, comps or tims. Throws http::Problem 503.
  Download(database::Pool& pool, std::string_view kind, const std::string& organisation);

  /// Writes everything. Throws if it cannot: what has been written is not complete then.
  void write_to(const http::Write& write);

 private:
  struct Query;
  static const Query& query_of(std::string_view kind);
  std::string lines() const;

  const Query& query_;
  std::chrono::steady_clock::time_point until_;
  database::Session session_;
  database::Transaction transaction_;
  database::Rows rows_;
};

}  // namespace reference::exports
