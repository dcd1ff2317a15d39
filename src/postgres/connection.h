#pragma once

// What every connection to a server shares (libpq): making it, waiting, and understanding answers.

#include <libpq-fe.h>

#include <charconv>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "postgres/libpq.h"
#include "postgres/session.h"

namespace holdfast::postgres {

struct FreeResult {
  void operator()(PGresult* result) const { libpq().PQclear(result); }
};
using Result = std::unique_ptr<PGresult, FreeResult>;

struct CloseConnection {
  void operator()(PGconn* connection) const { libpq().PQfinish(connection); }
};
using Handle = std::unique_ptr<PGconn, CloseConnection>;

/// One keyword of a connection string, and its value.
struct Keyword {
  const char* name;
  const char* value;
};
/// Connects, or throws Error(unreachable), Error(configuration) for a malformed string. `defaults`
/// yield to what the string says, `fixed` do not. Connects within 10 seconds unless the string or
/// PGCONNECT_TIMEOUT says otherwise. Notices are dropped.
Handle connect(const std::string& connection, const std::vector<Keyword>& defaults,
               const std::vector<Keyword>& fixed);

/// libpq ends its messages in line feeds, and uses them and tabs inside.
std::string one_line(std::string_view text);

/// Waits until an answer is there; heeds signals that ask us to stop.
void await_answer(PGconn* connection);

/// Throws what a failed answer means.
[[noreturn]] void fail_query(PGconn* connection, const PGresult* result);

Rows rows_of(const PGresult* result);

template <typename T>
T number(const std::string& text) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) {
    base::fail(base::Code::postgres, "PostgreSQL answered \"{}\" where a number was expected",
               text);
  }
  return value;
}

/// A WAL position as the server prints it.
Lsn lsn_of(const std::string& text);

}  // namespace holdfast::postgres
