#pragma once

// What the service knows about a table: everything that its REST interface does follows from this.

#include <string>
#include <string_view>
#include <vector>

#include "auth/principal.h"

namespace reference::resources {

enum class Kind { text, number, integer, date, time, uuid, json };
std::string_view sql_type(Kind kind);

struct Column {
  std::string name;
  Kind kind = Kind::text;
  enum class Access { read, write } access = Access::write;
  bool required = false;  ///< never null, and a new row must have it
  /// Lists can be restricted to a value of it; numbers and dates also to a range (_from, _to).
  bool filter = false;
  std::vector<std::string> choices = {};  ///< the only values, if there are any
};

struct Table {
  std::string name;
  auth::Role reads = auth::Role::viewer;
  auth::Role writes = auth::Role::editor;
  bool creates = true;
  bool changes = true;
  bool deletes = true;
  /// What the database or a worker changes by itself is not cached.
  bool cached = true;
  /// The column that holds the organisation.
  std::string tenant = "organisation";
  /// Tables whose rows refer to this one and change when a row of it is deleted.
  std::vector<std::string> referring = {};
  /// But for id and created_at, which all have.
  std::vector<Column> columns = {};

  /// A row as JSON text, as an SQL expression.
  std::string json() const;
  const Column* find(std::string_view column) const;
};

/// All tables that clients see.
const std::vector<Table>& tables();
/// The one of this name, which must be one.
const Table& table_of(std::string_view name);

}  // namespace reference::resources
