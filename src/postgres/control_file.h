#pragma once

// global/pg_control (src/include/catalog/pg_control.h), of PostgreSQL 13 to 18.

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/file.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

/// A system identifier: PostgreSQL's own number for a cluster, made by initdb.
struct SystemId {
  std::uint64_t value = 0;
  auto operator<=>(const SystemId&) const = default;
};
std::string to_string(SystemId id);

struct ControlFile {
  SystemId system_id;
  std::uint32_t control_version = 0;  ///< 1300 (13 to 16), 1700, 1800
  std::uint32_t catalog_version = 0;
  std::uint32_t state = 0;  ///< DBState
  Lsn checkpoint;           ///< the last checkpoint record
  Lsn redo;                 ///< where replay from it begins
  Timeline timeline;        ///< of that checkpoint
  Lsn min_recovery_point;   ///< on a standby: how far replay must get
  Timeline min_recovery_timeline;
  std::uint32_t block_size = 0;
  std::uint32_t relation_segment_blocks = 0;
  SegmentSize wal_segment_size;
  std::uint32_t checksum_version = 0;  ///< 0: pages carry no checksums
};

/// DBState of a cluster that was shut down cleanly (1) or as a standby (2).
bool was_shut_down(const ControlFile& control);

/// Parses the bytes of pg_control. The place of the CRC tells the layout; it must match. Throws
/// Error(corrupt) if it does not and Error(unsupported) for a version that we do not know.
ControlFile parse_control_file(base::View bytes);

/// Reads DATA/global/pg_control; a torn read (pitfall B13: the server rewrites it in place) is
/// tried again, some tens of times over a second, before it counts as corrupt. Returns the bytes
/// too: the backup stores what was checked.
struct ControlFileRead {
  ControlFile control;
  base::Bytes bytes;
};
ControlFileRead read_control_file(const base::fs::path& data_directory);

/// The same control file with a checkpoint position that no server can start from, CRC made right:
/// without backup_label, which names the real one, a server refuses to start (pitfall B19).
base::Bytes without_checkpoint(base::View bytes);

}  // namespace holdfast::postgres
