#pragma once

// WAL that is replayed in another place than it was written for.
//
// Replay makes a tablespace at the absolute place that the record names. In a restored directory
// that is where the first server has its own, and may be running on it. So before WAL is handed to
// such a directory the location in XLOG_TBLSPC_CREATE records is taken out, and their CRC mended:
// replay then makes pg_tblspc/OID itself a directory, or goes through the link of that name if
// there is one (create_tablespace_directories in commands/tablespace.c: PostgreSQL 15 to 18, 14.5
// and 13.8 and younger; older ones stop at such a record). Records keep their length: what was the
// location is zeros.

#include <functional>
#include <optional>
#include <vector>

#include "postgres/replay_record.h"

namespace holdfast::postgres {

/// Gives the segment before or behind one, as replay would read it; nullopt if there is none. Asked
/// for only when a record that may be such a one goes over the border.
struct Neighbours {
  std::function<std::optional<base::Bytes>()> previous;
  std::function<std::optional<base::Bytes>()> next;
};

/// Does that to a whole segment; its first page must be sound. Returns the records that it changed,
/// as they were. A record that begins in one segment and ends in the next is changed in each of
/// them alike; if there is no segment behind, WAL ends before it. Throws Error(wal_missing) if the
/// one behind does not follow on this one.
std::vector<TablespaceRecord> put_tablespaces_in_place(base::Bytes& segment,
                                                       const Neighbours& neighbours);

}  // namespace holdfast::postgres
