#pragma once

// `extract`: tables, schemas or a whole database out of any moment, while production goes on.
//
// The moment is brought back in a scratch cluster (scratch_cluster.h), where nothing is fetched
// that is not read; pg_dump takes out of it what was asked for, as SQL or straight into another
// database, in one transaction; then it is thrown away. What is renamed (`as`) is renamed in the
// scratch cluster, before it is dumped.

#include <string>
#include <vector>

#include "base/report.h"
#include "operations/restore_plan.h"
#include "operations/scratch_cluster.h"

namespace holdfast::operations {

struct ExtractRequest {
  RestoreRequest moment;
  std::string database;             ///< empty: the one that has what is named
  std::vector<std::string> tables;  ///< "orders" or "sales.orders"; views and sequences, too
  std::vector<std::string> schemas;
  bool whole_database = false;  ///< if neither tables nor schemas are named
  std::string as;               ///< another name for the one table: "orders_before"
  /// Where it goes: a database (a libpq connection string), or else a file; "-" is stdout.
  std::string into;
  std::string output = "-";
  unsigned workers = 1;
};

struct ExtractOutcome {
  repository::BackupId backup;
  RecoveryTarget target;
  std::vector<std::string> notes;
  std::string database;
  struct Table {
    std::string name;  ///< as it was, quoted where it must be
    std::string as;    ///< as it is called now
    std::uint64_t rows = 0;
  };
  std::vector<Table> tables;         ///< of those that were asked for by name
  base::Microseconds until_ready{};  ///< from the command until the scratch server answered
  base::Microseconds duration{};
};

ExtractOutcome extract(const Configuration& configuration, const std::string& cluster,
                       const ExtractRequest& request, base::Progress& progress);

}  // namespace holdfast::operations
