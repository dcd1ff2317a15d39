#pragma once

// Records whose replay reaches beyond relation files: tablespaces, which replay makes at the
// absolute place that the record names (commands/tablespace.h), and the limits of the server that
// wrote the WAL, below which recovery stops (xl_parameter_change in access/xlog_internal.h). For
// PostgreSQL 13 to 18, which have them alike.

#include <optional>
#include <string>

#include "postgres/wal_reader.h"

namespace holdfast::postgres {

/// XLOG_TBLSPC_CREATE or XLOG_TBLSPC_DROP.
struct TablespaceRecord {
  bool creates = false;  ///< false: drops
  std::uint32_t oid = 0;
  std::string location;  ///< of a creation; empty: in place, pg_tblspc/OID is the directory itself
  Lsn start;             ///< of the record
  Lsn end;
};
/// nullopt if the record is none. Throws Error(corrupt) if it is one that does not parse.
std::optional<TablespaceRecord> tablespace_record_of(const WalRecord& record);

/// No record of a tablespace is longer than this: header, MAXPGPATH (1024) and what may stand
/// before.
constexpr std::size_t longest_tablespace_record = 1088;
/// In the main data of a creation: behind the OID comes the location, to the end.
constexpr std::size_t tablespace_location_at = 4;

/// What a server in recovery must have at least as much of as the one that wrote the WAL had.
struct ServerLimits {
  std::uint32_t max_connections = 0;
  std::uint32_t max_worker_processes = 0;
  std::uint32_t max_wal_senders = 0;
  std::uint32_t max_prepared_transactions = 0;
  std::uint32_t max_locks_per_transaction = 0;
  bool operator==(const ServerLimits&) const = default;
  /// Each becomes the greater one of the two.
  void raise_to(const ServerLimits& other);
};
/// Of XLOG_PARAMETER_CHANGE. nullopt if the record is none.
std::optional<ServerLimits> limits_of(const WalRecord& record);
/// Of pg_control, where the server notes what it runs with. Throws as parse_control_file does.
ServerLimits limits_in_control_file(base::View bytes);

}  // namespace holdfast::postgres
