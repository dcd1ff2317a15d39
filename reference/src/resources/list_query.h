#pragma once

// A list as a client asks for it, and as SQL.

#include <string>

#include "database/connection.h"
#include "http/message.h"
#include "resources/table.h"

namespace reference::resources {

struct ListQuery {
  /// Rows of three columns: created_at in microseconds, id, and the row as JSON; one more than
  /// `limit` if there are more.
  std::string sql;
  database::Parameters parameters;
  std::size_t limit = 50;
  /// The same for each request that asks the same.
  std::string name;
};
/// Throws Problem 400 for a parameter that is not known or cannot be understood.
ListQuery list_query(const Table& table, const std::string& organisation,
                     const http::Request& request);

}  // namespace reference::resources
