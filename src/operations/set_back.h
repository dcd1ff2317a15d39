#pragma once

// A server whose storage was set back: a snapshot of its disk or virtual machine was brought back
// to life. It is the same system on the same timeline, but what it writes from then on is not the
// WAL of these names in the archive (POSTGRES U4).
//
// Such WAL is told by its bytes. Where it goes on behind what the archive has, a break is recorded
// (repository/gaps.h), and no older backup is brought over it. Where it would come under names that
// the archive has, there can be no backup: the server must leave its timeline first.

#include <functional>
#include <optional>

#include "operations/source.h"
#include "postgres/timeline_history.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// The history that the server is on: what it has itself counts, not what the repository thinks of
/// that timeline's number (U3). nullopt if the two differ, or there is none. `data_directory` may
/// be empty.
std::optional<postgres::TimelineHistory> server_history(const base::fs::path& data_directory,
                                                        const repository::WalArchive& archive,
                                                        postgres::Timeline timeline);

/// Throws Error(conflict) if the archive has the whole of a segment that the primary is still
/// writing, as it can only be if another one wrote it. `start` is where a backup begins; `position`
/// asks where the server writes.
void refuse_earlier_life(const Source& source, const repository::WalArchive& archive,
                         postgres::Lsn start, const std::function<postgres::Lsn()>& position);

/// Compares the segments that both have, from the one before `start` back to the one that holds
/// `known`, where the newest backup ended: behind the archive's WAL of the first life there may be
/// some of the second already. At the beginning of a timeline this compares also with the timeline
/// before. nullopt if they agree, or nothing can be compared. Otherwise: from here on the archive
/// has no WAL of the first life.
std::optional<postgres::Lsn> find_break(const base::fs::path& data_directory,
                                        const repository::WalArchive& archive,
                                        const postgres::TimelineHistory& history,
                                        postgres::SegmentSize size, postgres::Lsn known,
                                        postgres::Lsn start);

}  // namespace holdfast::operations
