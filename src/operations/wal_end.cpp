#include "operations/wal_end.h"

#include <algorithm>
#include <limits>

namespace holdfast::operations {

using postgres::Lsn;

WalGlance glance_at_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                            const postgres::TimelineHistory& history, Lsn from,
                            std::uint64_t most_bytes) {
  const std::uint64_t size = coverage.segment_size().bytes;
  const Lsn end = coverage.contiguous_end(history, from);
  WalGlance result{{from, {}}, false};
  if (end == from || coverage.breaks_at(history, from)) return result;
  const std::uint64_t first = from.value / size;
  const std::uint64_t last = (end.value - 1) / size;
  const std::uint64_t near = std::max<std::uint64_t>(most_bytes / size, 1);
  const auto note_time = [&](const postgres::WalEvent& event) {
    std::optional<base::Timestamp>& latest = result.end.last_commit;
    if (event.kind != postgres::WalEvent::Kind::restore_point) {
      latest = std::max(latest.value_or(event.time), event.time);
    }
    return true;
  };
  for (std::uint64_t back = 0;;) {
    const std::uint64_t number = last - back;
    // One segment more, for the record that continues there.
    const Lsn read = read_events(archive, coverage, history, std::max(from, Lsn{number * size}),
                                 note_time, number + 1);
    result.end.lsn = std::max(result.end.lsn, read);
    if (result.end.last_commit || number == first) return result;
    const std::uint64_t next = std::min(back < near ? back + 1 : back * 2, last - first);
    result.is_at_least = result.is_at_least || next > back + 1;
    back = next;
  }
}

WalEnd find_wal_end(const repository::WalArchive& archive, const WalCoverage& coverage,
                    const postgres::TimelineHistory& history, Lsn from) {
  constexpr auto all = std::numeric_limits<std::uint64_t>::max();
  return glance_at_wal_end(archive, coverage, history, from, all).end;
}

}  // namespace holdfast::operations
