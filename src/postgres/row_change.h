#pragma once

// What WAL records of tables do to rows (access/heapam_xlog.h), for PostgreSQL 13 to 18.
//
// Only what a person asks for who looks for the moment before an accident: how many rows of which
// relation, and by whom. Rows themselves are not decoded.

#include <optional>
#include <vector>

#include "postgres/wal_body.h"

namespace holdfast::postgres {

struct RowChange {
  enum class Kind { inserted, updated, deleted, updated_in_place };
  Kind kind = Kind::inserted;
  RelationId relation;
  std::uint32_t rows = 0;
  std::uint32_t block = 0;   ///< of a delete or an update in place: which row,
  std::uint16_t offset = 0;  ///< by its line pointer
  bool has_image = false;    ///< the whole page is in the record instead of the row alone
};
/// nullopt for all other records, and for what does not parse.
std::optional<RowChange> row_change_of(const WalRecord& record);

/// TRUNCATE as a server with wal_level = logical records it (others do not): which relations.
struct Truncation {
  std::uint32_t database = 0;
  std::vector<std::uint32_t> oids;
};
std::optional<Truncation> truncation_of(const WalRecord& record);

}  // namespace holdfast::postgres
