#include "resources/audit.h"

namespace reference::resources {

void audit(database::Transaction& transaction, const auth::Principal& principal,
           const Change& change) {
  transaction.run(
      "INSERT INTO audit_logs (organisation, actor, action, table_name, row_id, before, after) "
      "VALUES ($1, $2, $3, $4, $5::uuid, $6::jsonb, $7::jsonb)",
      {principal.organisation, principal.user, std::string(change.action),
       std::string(change.table), change.row, change.before, change.after});
}

}  // namespace reference::resources
