#pragma once

// Puts the rows of a batch into their tables, with their audit logs.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "database/pool.h"

namespace reference::imports {

/// Whose import of what it is.
struct ImportOf {
  std::string job;
  std::string organisation;
  std::string actor;
  std::string kind;
};

struct BadLine {
  std::uint64_t line;
  std::string reason;
};

/// Each row is an object of columns and "line". Those that cannot be inserted are added to `bad`.
void insert_rows(database::Transaction& transaction, const ImportOf& import,
                 const std::vector<nlohmann::json>& rows, std::vector<BadLine>& bad);

}  // namespace reference::imports
