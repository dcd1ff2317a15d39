#pragma once

// What a backup's source held when the backup was taken, told by the server itself and not by the
// files: so that a drill can say not only that what came back is consistent, but that it is all
// there.
//
// Every backup takes one (attachment "witness" of its map, so it is sealed with the backup): for
// each database its tables, their sizes, how many rows the larger ones hold, and a few rows, known
// by their place, their transaction and a keyed digest. It is cheap: some random blocks of the
// largest tables and of others that each backup chooses anew, some 100 ms for a cluster of 4 GiB;
// no transaction is held open and no lock is waited for. No value is in it.
//
// It holds for every state of the cluster from `holds_from` on: a row that was there then, and
// whose page has not been changed since it was looked at, must be there unchanged.

#include <optional>
#include <string>
#include <vector>

#include "operations/catalog.h"
#include "postgres/row_sample.h"
#include "repository/page_map.h"

namespace holdfast::operations {

struct WitnessedRow {
  std::string place;
  std::string transaction;
  std::string digest;  ///< keyed by the repository
};

struct WitnessedTable {
  std::string database;
  postgres::TableFacts facts;
  bool sampled = false;  ///< rows, exact and sample mean something
  std::uint64_t rows = 0;
  bool exact = false;
  postgres::Lsn at;  ///< the sample was read after this position was written
  std::vector<WitnessedRow> sample;

  /// database.schema.table: for people, and to find it again.
  std::string name() const;
};

struct Witness {
  base::Timestamp taken;
  postgres::Lsn holds_from;
  std::string superuser;  ///< the name of the role that made the cluster
  std::vector<WitnessedTable> tables;
  std::vector<std::string> notes;  ///< what could not be looked at
};

/// Looks at all databases. What cannot be looked at is noted; nothing but a signal is thrown.
Witness take_witness(const repository::Repository& repository, postgres::Session& session,
                     const std::string& connection);

std::string to_text(const Witness& witness);
/// Throws Error(corrupt) for what to_text() did not write.
Witness parse_witness(std::string_view text);

/// The witness of a backup; nullopt if it was taken without.
std::optional<Witness> witness_of(const repository::BackupMap& map);

/// The keyed digest of a row.
std::string row_digest(const repository::Repository& repository, const postgres::SampledRow& row);

}  // namespace holdfast::operations
