#pragma once

// Finding out which blocks changed since the previous backup, without reading them: from the WAL
// between the two backups, or from the server's own summaries of it (PostgreSQL 17).
//
// Both are believed only if they cover all of it on one history (POSTGRES U10, U11). If they do
// not, that is an answer, not an error: the pages are read then.

#include <string>

#include "operations/baseline.h"
#include "operations/changed_blocks.h"

namespace holdfast::operations {

struct ChangesSince {
  std::optional<ChangedBlocks> blocks;
  std::string why_not;  ///< if there are none: "a segment is missing", ...
};

/// Decodes the records from the start of the baseline up to `until`. WAL up to the baseline's end
/// is taken from the archive, as the baseline's own; what follows must continue it record by
/// record, be it from pg_wal or from the archive (from there alone without a data directory).
ChangesSince changes_by_wal(const Baseline& baseline, const repository::WalArchive& archive,
                            const base::fs::path& data_directory, postgres::Lsn until,
                            unsigned workers);

/// The same of the records from `from` up to `until`, on that history, as the archive has them.
ChangesSince changes_in_archive(const postgres::TimelineHistory& history,
                                postgres::SegmentSize segment_size,
                                const repository::WalArchive& archive, postgres::Lsn from,
                                postgres::Lsn until, unsigned workers);

/// Why the server's WAL summaries are of no use, whatever they cover; empty if they may be.
std::string why_no_summaries(postgres::Session& session);

/// Asks the server for its summaries of that WAL; waits a little while for the last one. They are
/// put together in the order of the WAL.
ChangesSince changes_by_summaries(const Baseline& baseline, postgres::Session& session,
                                  postgres::Timeline timeline, postgres::Lsn until);

/// Only where files were cut off since the baseline's start, or made anew, as far as there are
/// summaries by now.
ChangesSince cuts_by_summaries(const Baseline& baseline, postgres::Session& session);

}  // namespace holdfast::operations
