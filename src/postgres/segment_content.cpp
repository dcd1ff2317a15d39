#include "postgres/segment_content.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/wal_page.h"
#include "postgres/wal_segment.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint64_t switch_size = 24;  // a record's header, and nothing else

/// The records from one page on, as far as they follow each other.
struct Walk {
  Lsn end;                ///< of the last whole record; 0 if there is none
  Lsn last;               ///< where that begins
  bool switched = false;  ///< it is a switch
  bool through = false;   ///< nothing but WAL comes up to the end of the file
};

Walk walk(base::View file, const SegmentHeader& header, std::size_t page) {
  Walk result;
  WalReader reader = WalReader::at_page({header.address.value + page * wal_page_size}, header.size);
  result.through = reader.feed(file, [&](const WalRecord& record) {
    result.last = record.start;
    result.switched = is_switch(record);
    return true;
  });
  result.end = reader.end();
  return result;
}

/// Its record may go on on the next page.
std::uint64_t end_of_switch(Lsn start) {
  const std::uint64_t space = wal_page_size - start.value % wal_page_size;
  const std::uint64_t header = space < switch_size ? wal_short_header_size : 0;
  return (start.value + switch_size + header + 7) & ~std::uint64_t{7};
}

SegmentEnd describe(const Walk& walk, const SegmentHeader& header, base::View file) {
  const std::uint64_t begin = header.address.value;
  if (walk.switched) return {end_of_switch(walk.last) - begin, true, true};
  if (walk.through) return {file.size(), false, true};
  return {walk.end ? walk.end.value - begin : 0, false, false};
}

/// So many pages from the first one on belong where they are.
std::size_t pages_in_place(base::View file, const SegmentHeader& header) {
  std::size_t count = 1;
  for (std::size_t at = wal_page_size; at < file.size(); at += wal_page_size, ++count) {
    const WalPageHeader page = wal_page_header(file.subspan(at, wal_short_header_size));
    if (page.magic != header.magic || page.address.value != header.address.value + at) break;
  }
  return count;
}

/// nullopt if it is no segment file at all.
std::optional<SegmentHeader> header_of(base::View file) {
  try {
    const SegmentHeader header = parse_segment_header(file);
    if (file.size() == header.size.bytes) return header;
  } catch (const base::Error&) {  // whoever checks it will say why
  }
  return std::nullopt;
}

}  // namespace

SegmentEnd find_segment_end(base::View file) {
  const auto header = header_of(file);
  if (!header) return {file.size(), false, true};
  // A switch is the last record, so it is on the last page, or begins on the one before.
  const std::size_t pages = pages_in_place(file, *header);
  Walk found;
  for (std::size_t page = pages; page-- > 0 && page + 2 >= pages;) {
    found = walk(file, *header, page);
    if (found.end || found.through) break;
  }
  return describe(found, *header, file);
}

SegmentEnd read_to_segment_end(base::View file) {
  const auto header = header_of(file);
  if (!header) return {file.size(), false, true};
  return describe(walk(file, *header, 0), *header, file);
}

SegmentContent::SegmentContent(base::View file) : file_(file) {
  const SegmentEnd end = find_segment_end(file);
  if (!end.switched) return;
  const base::View rest = file.subspan(end.used);
  // Nothing but zeros: as a whole, most of 16 MiB is not to be looked at byte by byte.
  if (rest.empty() || (rest[0] == 0 && std::equal(rest.begin() + 1, rest.end(), rest.begin()))) {
    return;
  }
  cleaned_.assign(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(end.used));
  cleaned_.resize(file.size());
}

std::optional<std::size_t> first_difference(base::View file, base::View other) {
  const auto [at, there] = std::ranges::mismatch(file, other);
  if (at == file.end() && there == other.end()) return std::nullopt;
  const auto place = static_cast<std::size_t>(at - file.begin());
  if (place >= read_to_segment_end(file).used) return std::nullopt;
  return place;
}

bool is_same_segment(base::View one, base::View other) {
  if (one.size() != other.size()) return false;
  const SegmentEnd end = read_to_segment_end(one);
  const std::size_t common = end.switched ? end.used : one.size();
  return std::ranges::equal(one.first(common), other.first(common));
}

bool is_same_partial(base::View one, base::View other) {
  if (one.size() != other.size()) return false;
  const std::size_t common =
      std::min(read_to_segment_end(one).used, read_to_segment_end(other).used);
  return common > 0 && std::ranges::equal(one.first(common), other.first(common));
}

}  // namespace holdfast::postgres
