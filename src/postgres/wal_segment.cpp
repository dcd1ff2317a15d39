#include "postgres/wal_segment.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/wal_page.h"

namespace holdfast::postgres {

namespace {

/// The first page of a segment file that PostgreSQL made but did not write yet, or wrote when the
/// file was another segment (it renames old files to be written again: RemoveXlogFile in xlog.c).
bool was_never_written(const WalPageHeader& header, base::View page, Lsn address,
                       const SegmentHeader& first) {
  if (header.magic == 0) {
    return std::all_of(page.begin(), page.end(), [](std::uint8_t byte) { return byte == 0; });
  }
  const std::uint64_t size = first.size.bytes;
  return header.magic == first.magic && header.address < address &&
         header.address.value % size == address.value % size;
}

void check_pages(base::View bytes, const SegmentHeader& first, const WalFileName& name) {
  Timeline timeline = first.timeline;
  for (std::size_t at = wal_page_size; at < bytes.size(); at += wal_page_size) {
    const base::View page = bytes.subspan(at, wal_page_size);
    const WalPageHeader header = wal_page_header(page);
    const Lsn address{first.address.value + at};
    if (header.magic == first.magic && header.address == address) {
      if (header.timeline < timeline || header.timeline > name.timeline) {
        base::fail(base::Code::corrupt, "the page at {} claims timeline {}", to_string(address),
                   header.timeline.value);
      }
      if ((header.info & ~wal_page_flags::known) != 0 ||
          (header.info & wal_page_flags::long_header) != 0) {
        base::fail(base::Code::corrupt, "the page at {} has impossible flags", to_string(address));
      }
      timeline = header.timeline;
    } else if (was_never_written(header, page, address, first)) {
      return;
    } else {
      base::fail(base::Code::corrupt,
                 "the page at {} is damaged: its header is of no WAL page there",
                 to_string(address));
    }
  }
}

void check_place(const SegmentHeader& header, base::View bytes, const WalFileName& name) {
  if (bytes.size() != header.size.bytes) {
    base::fail(base::Code::corrupt, "it has {} bytes, but segments of its cluster have {}",
               bytes.size(), header.size.bytes);
  }
  const std::optional<Segment> segment = name.segment(header.size);
  if (!segment || start_of(*segment, header.size) != header.address) {
    base::fail(base::Code::corrupt, "it holds the WAL at {}, which belongs under another name",
               to_string(header.address));
  }
  if (header.timeline.value == 0 || header.timeline > name.timeline) {
    base::fail(base::Code::corrupt, "it holds WAL of timeline {}, but its name says {}",
               header.timeline.value, name.timeline.value);
  }
}

}  // namespace

std::optional<int> major_version_of_magic(std::uint16_t magic) {
  switch (magic) {
    case 0xD106:
      return 13;
    case 0xD10D:
      return 14;
    case 0xD110:
      return 15;
    case 0xD113:
      return 16;
    case 0xD116:
      return 17;
    case 0xD118:
      return 18;
    default:
      return std::nullopt;
  }
}

SegmentHeader parse_segment_header(base::View first_bytes) {
  if (first_bytes.size() < wal_long_header_size) {
    base::fail(base::Code::corrupt, "it is no WAL segment: it has only {} bytes",
               first_bytes.size());
  }
  const WalPageHeader page = wal_page_header(first_bytes);
  if (!major_version_of_magic(page.magic)) {
    base::fail(base::Code::corrupt,
               "it is no WAL segment of PostgreSQL 13 to 18: it begins with {:04X}", page.magic);
  }
  if ((page.info & wal_page_flags::long_header) == 0 || (page.info & ~wal_page_flags::known) != 0) {
    base::fail(base::Code::corrupt, "its first page is not that of a WAL segment");
  }
  const WalLongHeader more = wal_long_header(first_bytes);
  if (!is_valid(more.segment_size) || more.block_size != wal_page_size) {
    base::fail(base::Code::corrupt, "its first page names impossible sizes");
  }
  if (page.address.value % more.segment_size.bytes != 0) {
    base::fail(base::Code::corrupt, "its first page names the position {}, where no segment begins",
               to_string(page.address));
  }
  return {page.magic, page.timeline, page.address, more.system_id, more.segment_size};
}

SegmentHeader check_segment(base::View bytes, const WalFileName& name,
                            std::optional<SystemId> expected) {
  const SegmentHeader header = parse_segment_header(bytes);
  check_place(header, bytes, name);
  check_pages(bytes, header, name);
  if (expected && header.system_id != *expected) {
    throw base::Error(base::Code::foreign,
                      fmt::format("it belongs to system {}, not to {}", to_string(header.system_id),
                                  to_string(*expected)),
                      "check that archive_command names the right cluster");
  }
  return header;
}

}  // namespace holdfast::postgres
