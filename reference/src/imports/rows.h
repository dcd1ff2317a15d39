#pragma once

// What a line of an import means: which columns a kind of import has, and what may stand in them.
//
// buildings: name, address, [city], [area_m2]. comps: building_name, building_address,
// [building_city], tenant, area_m2, rent_per_m2, signed_on, [term_months], [note]. Columns come in
// any order, those in brackets may be missing or empty; id, created_at and updated_at, which an
// export has, are passed over, and any other column is refused. Amounts have up to ten digits and
// up to two decimals; dates are YYYY-MM-DD. An apostrophe that exports put before a text that a
// spreadsheet would take for a formula is taken off again.
//
// Everything that the tables' constraints would refuse is refused here, with a reason.

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace reference::imports {

class RowReader {
 public:
  /// `kind` is "buildings" or "comps". Throws std::invalid_argument, with a reason, if these are
  /// not its columns.
  RowReader(std::string_view kind, const std::vector<std::string>& header);

  /// The row by column (JSON texts and nulls), or what is wrong with it.
  std::variant<nlohmann::json, std::string> read(const std::vector<std::string>& fields) const;

 private:
  struct Column;
  static const std::vector<Column>& columns_of(std::string_view kind);

  std::vector<const Column*> columns_;  // by position in the file; null: passed over
};

}  // namespace reference::imports
