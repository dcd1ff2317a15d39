#pragma once

// Who changed what: a row in audit_logs, in the transaction of the change itself, so that neither
// is there without the other.

#include <optional>
#include <string>
#include <string_view>

#include "auth/principal.h"
#include "database/pool.h"

namespace reference::resources {

struct Change {
  std::string_view action;  ///< "create", "change", "delete", ...
  std::string_view table;
  std::string row;                    ///< its id
  std::optional<std::string> before;  ///< JSON objects
  std::optional<std::string> after;
};
void audit(database::Transaction& transaction, const auth::Principal& principal,
           const Change& change);

}  // namespace reference::resources
