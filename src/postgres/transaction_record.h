#pragma once

// What the WAL record that ends a transaction says (xl_xact_commit and xl_xact_abort in
// access/xact.h, read as ParseCommitRecord in xactdesc.c does), for PostgreSQL 13 to 18.
//
// Arrays are views of the record: nothing is copied. Whatever does not fit throws Error(corrupt).

#include "base/bytes.h"
#include "base/time.h"

namespace holdfast::postgres {

struct TransactionEnd {
  base::Timestamp time;
  std::uint32_t prepared = 0;  ///< the number of the prepared transaction that ended; or 0
  base::View subtransactions;  ///< that ended with it: 4 bytes each
  base::View relations;        ///< whose files go: tablespace, database, relation, 4 bytes each
  /// From 15: of what statistics are forgotten, because it is dropped for good (a relation that is
  /// only rewritten or truncated is not among these): `statistics_size` bytes each, of which the
  /// first 12 are kind, database and object.
  base::View statistics;
  std::size_t statistics_size = 12;
};

/// What statistics are of (utils/pgstat_kind.h).
namespace statistics_kind {
constexpr std::uint32_t database = 1;
constexpr std::uint32_t relation = 2;
}  // namespace statistics_kind

namespace transaction_operation {
constexpr std::uint8_t mask = 0x70;
constexpr std::uint8_t commit = 0x00;
constexpr std::uint8_t prepare = 0x10;
constexpr std::uint8_t abort = 0x20;
constexpr std::uint8_t commit_prepared = 0x30;
constexpr std::uint8_t abort_prepared = 0x40;
constexpr std::uint8_t assignment = 0x50;
constexpr std::uint8_t invalidations = 0x60;
constexpr std::uint8_t has_parts = 0x80;  ///< more than the time follows
}  // namespace transaction_operation

/// A time as WAL has it: PostgreSQL counts from 2000-01-01.
base::Timestamp wal_time(base::ByteReader& from);

/// `data` is the main data of a commit or abort record (also of a prepared transaction) that has
/// this `info`; `what` names it in errors.
TransactionEnd read_transaction_end(base::View data, std::uint8_t info, int major,
                                    std::string_view what);

}  // namespace holdfast::postgres
