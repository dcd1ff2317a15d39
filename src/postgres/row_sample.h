#pragma once

// A few rows of a table, known by where they are, and how many there are in all: cheap enough for
// every backup, and good enough to tell whether a restored table holds what it held.
//
// A row's place (ctid) and its transaction (xmin) survive a physical backup. While both stay the
// same so do its bytes, but for columns that were added, so a digest of its text may be compared. A
// few random blocks are read, never the whole of a large table, and nobody is waited for longer
// than a moment. The digests are made by the server: no value of a row comes to us.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "postgres/session.h"

namespace holdfast::postgres {

struct TableFacts {
  std::uint32_t oid = 0;
  std::string schema;
  std::string name;
  std::uint32_t file = 0;   ///< pg_relation_filenode
  std::string path;         ///< pg_relation_filepath
  std::uint64_t pages = 0;  ///< of its main fork, when it was last vacuumed or analysed
  bool readable = false;    ///< this role may select from it
  std::string columns;  ///< a digest of the columns' numbers, types and whether they are dropped
};

/// Tables and materialised views with files that last, but for the system's own, the largest first;
/// at most `limit`. Waits for no lock.
std::vector<TableFacts> list_tables(Session& session, std::size_t limit);

/// The pages of its main fork now. Waits for whoever holds the table.
std::uint64_t current_pages(Session& session, const TableFacts& table);

/// Gives up on locks after 200 ms, and on any statement after `statement`.
void be_brief(Session& session, std::chrono::milliseconds statement);

/// A schema-qualified name, quoted for SQL.
std::string quoted_name(const TableFacts& table);

struct SampledRow {
  std::string place;        ///< "(12,3)"
  std::string transaction;  ///< xmin
  std::string digest;       ///< SHA-256 of the row's text, in hexadecimal
};
struct TableSample {
  std::uint64_t rows = 0;  ///< in the whole table: an estimate, unless `exact`
  bool exact = false;
  std::vector<std::string> places;  ///< of some rows that nobody is changing
};

/// Looks into `blocks` random blocks (or all, if there are no more), and picks at most `wanted`
/// rows. The table's `pages` are the current ones.
TableSample sample_table(Session& session, const TableFacts& table, std::uint64_t blocks,
                         std::size_t wanted);
/// The rows at these places that are there and that nobody was changing, by place.
std::map<std::string, SampledRow> read_rows(Session& session, const TableFacts& table,
                                            const std::vector<std::string>& places);

/// The block of a place: 12 of "(12,3)". Throws Error(corrupt) for what is no place.
std::uint32_t block_of(std::string_view place);

}  // namespace holdfast::postgres
