#pragma once

// A row that says when it was written: by it a drill measures how much work a loss would have cost,
// also where nobody else works.
//
// The table is a small one in the user's database ("database.schema.table"), with one row; `beat`
// makes it. Whatever writes it regularly (cron, a daemon) decides how exact the measure is.

#include <optional>
#include <string>

#include "base/time.h"
#include "postgres/session.h"

namespace holdfast::operations {

struct HeartbeatTable {
  std::string database;
  std::string schema;
  std::string table;
};
/// Throws Error(configuration) unless there are three parts.
HeartbeatTable parse_heartbeat(const std::string& name);

/// Writes the present, by the server's clock; makes schema and table if they are not there.
base::Timestamp beat(const std::string& connection, const HeartbeatTable& table);

/// The last beat; nullopt if the table has no row.
std::optional<base::Timestamp> last_beat(const std::string& connection,
                                         const HeartbeatTable& table);

}  // namespace holdfast::operations
