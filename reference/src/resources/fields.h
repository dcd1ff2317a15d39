#pragma once

// What clients send, checked against a table's columns before the database sees it.

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "database/connection.h"
#include "resources/table.h"

namespace reference::resources {

/// A value of a column as PostgreSQL reads it. Throws std::invalid_argument that says, after the
/// field's name, what is wrong: "must be a date such as 2026-01-31".
std::string parse(const Column& column, const std::string& text);

/// Columns to be set, by name; nullopt is NULL. Throws Problem 422 that names all wrong fields: not
/// known, not to be set, of the wrong type, null where nothing may be, or missing in a new row.
using Fields = std::map<std::string, std::optional<std::string>>;
Fields fields_of_new(const Table& table, const nlohmann::json& body);
Fields fields_of_change(const Table& table, const nlohmann::json& body);

/// True for a UUID in its usual form.
bool is_uuid(std::string_view text);

}  // namespace reference::resources
