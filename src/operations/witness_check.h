#pragma once

// Holding a cluster that was brought back against what the witnesses of backups say.

#include <map>
#include <string>

#include "operations/drill_checks.h"
#include "operations/witness.h"

namespace holdfast::operations {

/// Rows and tables of the restored backup's own witness. A row is excused only if its page, table
/// file or columns were changed after it was seen, which the page itself tells; a table only if
/// recovery went on beyond the backup. To be asked before anything else has read the tables:
/// reading changes pages.
Checked check_witness(const Site& site, ScratchCluster& cluster, const Witness& witness);

/// What was found in a table: all its rows, or an estimate.
struct CountedTable {
  std::uint64_t rows = 0;
  bool exact = false;
};
using CountedTables = std::map<std::string, CountedTable>;

/// Reads tables, whole where they are small or `budget` is none, else some of their blocks.
Checked check_tables(ScratchCluster& cluster, Budget budget, CountedTables& counted,
                     base::Progress& progress);

/// Does any table hold far less than a witness saw? A backup of a database that somebody emptied is
/// perfect, and useless. `previous`: of the backup before the one that was restored; it names the
/// witness.
struct NamedWitness {
  std::string name;
  const Witness* witness = nullptr;
};
Checked check_emptied(const CountedTables& counted, const std::vector<NamedWitness>& witnesses);

}  // namespace holdfast::operations
