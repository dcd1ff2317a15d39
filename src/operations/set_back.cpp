#include "operations/set_back.h"

#include <algorithm>

#include "base/error.h"
#include "operations/wal_coverage.h"
#include "postgres/segment_content.h"

namespace holdfast::operations {

namespace {

using postgres::Lsn;
using postgres::Segment;
using postgres::SegmentSize;
using postgres::Timeline;
using postgres::TimelineHistory;

}  // namespace

std::optional<TimelineHistory> server_history(const base::fs::path& data_directory,
                                              const repository::WalArchive& archive,
                                              Timeline timeline) {
  if (timeline.value == 1) return TimelineHistory(timeline);
  const std::string name = postgres::history_file_name(timeline);
  const auto local =
      data_directory.empty() ? std::nullopt : base::read_file(data_directory / "pg_wal" / name);
  const auto archived = archive.get(name);
  if (local && archived && *local != *archived) return std::nullopt;
  const auto& found = local ? local : archived;
  if (!found) return std::nullopt;
  return TimelineHistory(timeline, base::text(*found));
}

void refuse_earlier_life(const Source& source, const repository::WalArchive& archive, Lsn start,
                         const std::function<Lsn()>& position) {
  if (source.standby) return;  // its primary archives what it has not replayed yet
  const SegmentSize size = source.control.wal_segment_size;
  const Segment segment = postgres::segment_at(source.control.timeline, start, size);
  const std::string name = postgres::file_name(segment, size);
  // In this order: it may become complete, and be archived, between the two.
  if (!archive.has(name) || position() >= postgres::end_of(segment, size)) return;
  throw base::Error(
      base::Code::conflict,
      fmt::format("cannot back up: the server is still writing WAL segment {}, but the repository "
                  "has all of it: its storage was set back to an earlier state, or another server "
                  "archives to this place",
                  name),
      "if it was set back, it must leave its timeline: create standby.signal in its data "
      "directory, start it, and promote it; or restore to where the repository's WAL ends");
}

std::optional<Lsn> find_break(const base::fs::path& data_directory,
                              const repository::WalArchive& archive, const TimelineHistory& history,
                              SegmentSize size, Lsn known, Lsn start) {
  const WalCoverage coverage(archive, size);
  const std::uint64_t oldest = known.value / size.bytes;
  for (std::uint64_t number = start.value / size.bytes; number-- > oldest;) {
    const std::vector<Timeline> timelines = coverage.timelines_in(history, number);
    const Lsn first{number * size.bytes};
    std::optional<base::Bytes> local;
    for (const Timeline timeline : timelines) {
      const std::string name = postgres::file_name({timeline, number}, size);
      // A younger file holds the older one's part, too, but not the other way round.
      if (auto own = base::read_file(data_directory / "pg_wal" / name)) local = std::move(own);
      const auto archived = local ? archive.get(name) : std::nullopt;
      if (!archived) continue;
      const Lsn left = history.end_of(timeline).value_or(Lsn{first.value + size.bytes});
      const std::size_t common = std::min(left.value - first.value, size.bytes);
      // Only WAL counts: a file of the server may end in what it held when it was another segment.
      const auto differs = postgres::first_difference(*local, *archived);
      if (!differs || *differs >= common) continue;
      // The file that replay would take is of the other life itself, or only its forebear is.
      return timeline == timelines.front() ? Lsn{first.value + size.bytes} : first;
    }
    if (!local) break;  // the server has removed what is before that
  }
  return std::nullopt;
}

}  // namespace holdfast::operations
