#include "postgres/tablespaces_in_place.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/crc32c.h"
#include "postgres/wal_body.h"
#include "postgres/wal_page.h"

namespace holdfast::postgres {

namespace {

constexpr std::size_t record_header = 24;
constexpr std::size_t manager_at = 17;  // XLogRecord.xl_rmid
constexpr std::size_t crc_at = 20;      // XLogRecord.xl_crc: of the body, then of what is before it

/// A segment that is changed, and what was read of its neighbours.
class Patcher {
 public:
  Patcher(base::Bytes& segment, const Neighbours& neighbours)
      : segment_(segment),
        neighbours_(neighbours),
        size_(wal_long_header(segment).segment_size),
        begin_(wal_page_header(segment).address) {}

  std::vector<TablespaceRecord> run() {
    if (begins_inside_one()) {
      // Replay that cannot have the beginning of a record does not replay it.
      if (const auto before = neighbours_.previous()) read_border(*before, segment_, begin_);
    }
    read_segment();
    return std::move(changed_);
  }

 private:
  /// A record that began before may end here with a location: few do, as most others do not end in
  /// text and a NUL.
  bool begins_inside_one() const {
    const WalPageHeader header = wal_page_header(segment_);
    const std::size_t left = header.remaining;
    if ((header.info & wal_page_flags::first_is_continuation) == 0 ||
        (header.info & wal_page_flags::overwrites_record) != 0 || left == 0 ||
        left > longest_tablespace_record) {
      return false;
    }
    const std::uint8_t* last = segment_.data() + wal_long_header_size + left - 1;
    return *last == 0 && (left < 2 || *(last - 1) != 0);
  }

  /// To the end of the segment. Where the records of one page do not go on replay ends, as far as
  /// we know; but to overlook one would be worse than to look at bytes that nobody replays.
  void read_segment() {
    const base::Bytes as_it_was = segment_;
    for (Lsn at = begin_; at.value < begin_.value + size_.bytes;) {
      WalReader reader = WalReader::at_page(at, size_);
      const bool whole = reader.feed(as_it_was, [this](const WalRecord& record) {
        change(record);
        return true;
      });
      const Lsn end = std::max(reader.end(), at);
      if (!whole) {
        at = page_behind(end, at);
        continue;
      }
      if (reader.is_inside_record() && ends_inside_one(end)) read_rest_of_last(as_it_was, end);
      return;
    }
  }

  void read_rest_of_last(const base::Bytes& as_it_was, Lsn start) {
    const auto behind = neighbours_.next();
    if (!behind) {
      // WAL ends before this record; it must not go on by a segment that comes while it is
      // replayed.
      return for_each_byte(start, sizeof(std::uint32_t),
                           [this](std::uint64_t at) { segment_[at - begin_.value] = 0; });
    }
    if (read_border(as_it_was, *behind, {begin_.value + size_.bytes})) return;
    base::fail(base::Code::wal_missing,
               "cannot use the WAL from {} on: at its end a tablespace is made, and the segment "
               "behind it does not go on with that record",
               to_string(begin_));
  }

  /// Where to go on if the records from `begun` on end at `end`.
  Lsn page_behind(Lsn end, Lsn begun) const {
    std::uint64_t at = (end.value + wal_page_size - 1) / wal_page_size * wal_page_size;
    if (at == begun.value) at += wal_page_size;
    // Pages that were never written are passed over at once.
    while (at < begin_.value + size_.bytes &&
           wal_page_header(base::View(segment_).subspan(at - begin_.value)).address.value != at) {
      at += wal_page_size;
    }
    return {at};
  }

  /// The record at `start` goes on in the next segment.
  bool ends_inside_one(Lsn start) const {
    base::Bytes head;
    for_each_byte(start, record_header, [&](std::uint64_t at) {
      if (at < begin_.value + size_.bytes) head.push_back(segment_[at - begin_.value]);
    });
    if (head.size() < sizeof(std::uint32_t) ||
        base::load<std::uint32_t>(head.data()) > longest_tablespace_record) {
      return false;
    }
    return head.size() <= manager_at || head[manager_at] == resource_manager::tablespace;
  }

  /// Two segments in a row, of which one is ours: the record between them. False if they do not
  /// follow on each other.
  bool read_border(base::View first, base::View second, Lsn border) {
    if (first.size() != size_.bytes || second.size() != size_.bytes) return false;
    // It is short, so it begins on the last page.
    WalReader reader = WalReader::at_page({border.value - wal_page_size}, size_);
    bool passed = false;
    const auto visit = [&](const WalRecord& record) {
      passed = record.end > border;
      if (record.start < border && passed) change(record);
      return !passed;
    };
    if (reader.feed(first, visit)) reader.feed(base::Bytes(second.begin(), second.end()), visit);
    return passed;
  }

  /// Calls `visit` with the place of each byte of a record.
  template <typename Visit>
  void for_each_byte(Lsn start, std::size_t count, const Visit& visit) const {
    std::uint64_t at = start.value;
    for (std::size_t i = 0; i < count; ++i, ++at) {
      if (at % wal_page_size == 0) {
        at += at % size_.bytes == 0 ? wal_long_header_size : wal_short_header_size;
      }
      visit(at);
    }
  }

  void change(const WalRecord& record) {
    auto tablespace = tablespace_record_of(record);
    if (!tablespace || !tablespace->creates || tablespace->location.empty()) return;
    base::Bytes body = base::copy(record.body);
    const auto data = read_body(record, [](const BlockReference&) {}).value();
    const auto location =
        static_cast<std::size_t>(data.data() - record.body.data()) + tablespace_location_at;
    std::fill(body.begin() + static_cast<std::ptrdiff_t>(location), body.end(), std::uint8_t{0});
    base::Bytes header(record_header);
    fill_header(record, body.size(), header);
    const std::uint32_t crc = crc32c(base::View(header).first(crc_at), crc32c(body));
    std::size_t index = 0;
    for_each_byte(record.start, record_header + body.size(), [&](std::uint64_t at) {
      const std::size_t i = index++;
      if (at < begin_.value || at >= begin_.value + size_.bytes) return;
      std::uint8_t& byte = segment_[at - begin_.value];
      if (i >= record_header) {
        byte = body[i - record_header];
      } else if (i >= crc_at) {
        byte = static_cast<std::uint8_t>(crc >> (8 * (i - crc_at)));
      }
    });
    changed_.push_back(*std::move(tablespace));
  }

  /// The record's header as it stands in the WAL, without the CRC.
  static void fill_header(const WalRecord& record, std::size_t body, base::Bytes& header) {
    base::store(header.data(), static_cast<std::uint32_t>(record_header + body));
    base::store(header.data() + 4, record.transaction);
    base::store(header.data() + 8, record.previous.value);
    header[16] = record.info;
    header[manager_at] = record.resource_manager;
  }

  base::Bytes& segment_;
  const Neighbours& neighbours_;
  SegmentSize size_;
  Lsn begin_;
  std::vector<TablespaceRecord> changed_;
};

}  // namespace

std::vector<TablespaceRecord> put_tablespaces_in_place(base::Bytes& segment,
                                                       const Neighbours& neighbours) {
  return Patcher(segment, neighbours).run();
}

}  // namespace holdfast::postgres
