#pragma once

// Where WAL ends, by a look that takes no longer for a terabyte of it than for a segment.

#include "operations/wal_coverage.h"

namespace holdfast::operations {

/// Where the WAL of `history` that follows gaplessly on `from` ends.
struct WalEnd {
  postgres::Lsn lsn;  ///< end of the last record
  std::optional<base::Timestamp>
      last_commit;  ///< the latest commit or abort time up to there, if any
};
/// Looks back from the end, segment by segment, for the last commit; not further than `from`.
WalEnd find_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                    const postgres::TimelineHistory& history, postgres::Lsn from);

struct WalGlance {
  WalEnd end;
  /// Not all was read: there may be a later commit than `end.last_commit`.
  bool is_at_least = false;
};

/// As find_wal_end, but reads at most this much of the end, and where no transaction ended in it,
/// samples further back, each twice as far from the end as the one before, and last at `from`:
/// behind the end of a long transaction there may be no commit in terabytes.
WalGlance glance_at_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                            const postgres::TimelineHistory& history, postgres::Lsn from,
                            std::uint64_t most_bytes = 256 << 20);

}  // namespace holdfast::operations
