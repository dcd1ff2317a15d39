#pragma once

// One WAL segment file as a whole (xlog_internal.h): is it what its name says?

#include <optional>

#include "base/bytes.h"
#include "postgres/control_file.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

/// The long header of a segment's first page.
struct SegmentHeader {
  std::uint16_t magic = 0;
  Timeline timeline;  ///< may be an ancestor of the name's timeline: see check_segment
  Lsn address;        ///< where the segment starts
  SystemId system_id;
  SegmentSize size;
};

/// Parses the first page; throws Error(corrupt) if it has no long header, an unknown magic number,
/// or an impossible size.
SegmentHeader parse_segment_header(base::View first_bytes);
/// 13 for D106, 14 for D10D, 15 D110, 16 D113, 17 D116, 18 D118; nullopt for others.
std::optional<int> major_version_of_magic(std::uint16_t magic);

/// Checks a whole segment file against its name: length, system, address and timeline, and that
/// every page header in it up to the first page that was never written carries the right magic and
/// address (a segment may end in pages that are zero or, when recycled, carry an older address).
/// Returns the header. Throws Error(corrupt) for bytes that are no such segment, Error(foreign) if
/// it is a good segment of another system than `expected` (if one is given). A truncated file is
/// corrupt.
SegmentHeader check_segment(base::View bytes, const WalFileName& name,
                            std::optional<SystemId> expected);

}  // namespace holdfast::postgres
