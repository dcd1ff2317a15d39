#include "postgres/wal_reader.h"

#include <algorithm>

#include "postgres/crc32c.h"
#include "postgres/wal_page.h"
#include "postgres/wal_segment.h"

namespace holdfast::postgres {

namespace {

using base::load;

// XLogRecord (access/xlogrecord.h)
constexpr std::size_t record_header_size = 24;
constexpr std::size_t transaction_at = 4;
constexpr std::size_t previous_at = 8;
constexpr std::size_t info_at = 16;
constexpr std::size_t resource_manager_at = 17;
constexpr std::size_t crc_at = 20;
/// XLogRecordMaxSize: a longer one cannot be replayed by any version.
constexpr std::size_t largest_record = std::size_t{1020} << 20;
/// Memory kept from one split record to the next.
constexpr std::size_t buffer_to_keep = std::size_t{16} << 20;

constexpr std::uint64_t aligned(std::uint64_t at) {
  return (at + 7) & ~std::uint64_t{7};
}

/// The CRC covers what follows the header first, then the header up to the CRC (xloginsert.c).
bool crc_is_right(base::View record) {
  const std::uint32_t body = crc32c(record.subspan(record_header_size));
  return crc32c(record.first(crc_at), body) == load<std::uint32_t>(record.data() + crc_at);
}

}  // namespace

bool is_switch(const WalRecord& record) {
  return record.resource_manager == 0 && (record.info & 0xF0) == 0x40;
}

struct WalReader::Page {
  Lsn start;
  base::View bytes;  ///< fewer than a page if the rest is not there yet
  WalPageHeader header;
  std::size_t header_size = 0;
};

WalReader::WalReader(Lsn start, SegmentSize size)
    : next_(start_of(segment_at({}, start, size), size)), start_(start), size_(size) {}

WalReader WalReader::at_page(Lsn page, SegmentSize size) {
  WalReader reader(page, size);
  reader.next_ = page;
  return reader;
}

bool WalReader::feed(base::View segment, const Visit& visit) {
  const std::uint64_t begin = next_.value - next_.value % size_.bytes;
  segment = segment.first(std::min<std::uint64_t>(segment.size(), size_.bytes));
  for (;;) {
    Page page;
    page.start = {next_.value - next_.value % wal_page_size};
    const std::uint64_t at = page.start.value - begin;
    if (at >= segment.size()) return true;
    page.header_size = at == 0 ? wal_long_header_size : wal_short_header_size;
    page.bytes = segment.subspan(at, std::min(segment.size() - at, wal_page_size));
    if (page.bytes.size() < page.header_size) return true;
    page.header = wal_page_header(page.bytes);
    const Step step = accept(page) ? read_page(page, visit) : Step::stop;
    if (step != Step::on) return step == Step::more;
  }
}

/// Is this the page that has to come here? (XLogReaderValidatePageHeader in xlogreader.c)
bool WalReader::accept(const Page& page) {
  const WalPageHeader& header = page.header;
  const bool is_first = page.header_size == wal_long_header_size;
  if (magic_ != 0 ? header.magic != magic_ : !major_version_of_magic(header.magic)) return false;
  if ((header.info & ~wal_page_flags::known) != 0 || header.address != page.start ||
      ((header.info & wal_page_flags::long_header) != 0) != is_first ||
      header.timeline < timeline_) {
    return false;
  }
  if (is_first) {
    const WalLongHeader more = wal_long_header(page.bytes);
    if (more.segment_size != size_ || more.block_size != wal_page_size) return false;
    if (system_ && *system_ != more.system_id) return false;
    system_ = more.system_id;
  }
  magic_ = header.magic;
  timeline_ = header.timeline;
  return true;
}

WalReader::Step WalReader::read_page(const Page& page, const Visit& visit) {
  if (next_ == page.start) {
    const Step step = enter(page, visit);
    if (step != Step::on) return step;
  }
  const std::uint64_t page_end = page.start.value + wal_page_size;
  while (next_.value < page_end) {
    const Step step = read_record(page, visit);
    if (step != Step::on) return step;
  }
  return Step::on;
}

/// What the beginning of a page says of the record before it must be what is known of that record.
WalReader::Step WalReader::enter(const Page& page, const Visit& visit) {
  const WalPageHeader& header = page.header;
  if ((header.info & wal_page_flags::overwrites_record) != 0) {
    // A server crashed inside that record and, started again, gave it up: it was never complete.
    wanted_ = 0;
    passing_ = 0;
    record_.clear();
  }
  const bool continues = (header.info & wal_page_flags::first_is_continuation) != 0;
  if (continues && wanted_ == 0 && passing_ == 0 && !synchronised_) passing_ = header.remaining;
  const std::uint64_t left = wanted_ != 0 ? wanted_ - record_.size() : passing_;
  if (continues != (left != 0) || (continues && header.remaining != left)) return Step::stop;
  if (continues) return continue_record(page, visit);
  next_ = {page.start.value + page.header_size};
  return Step::on;
}

WalReader::Step WalReader::continue_record(const Page& page, const Visit& visit) {
  const std::uint64_t left = wanted_ != 0 ? wanted_ - record_.size() : passing_;
  const std::size_t here = std::min<std::uint64_t>(left, wal_page_size - page.header_size);
  if (page.bytes.size() < page.header_size + here) return Step::more;
  const Lsn behind{page.start.value + page.header_size + here};
  if (wanted_ == 0) {
    passing_ -= here;
    synchronised_ = passing_ == 0;
    next_ = {aligned(behind.value)};
    return Step::on;
  }
  const base::View part = page.bytes.subspan(page.header_size, here);
  record_.insert(record_.end(), part.begin(), part.end());
  next_ = behind;
  if (record_.size() < wanted_) return Step::on;
  if (!follows(record_, record_start_) || !crc_is_right(record_)) {
    record_.resize(record_.size() - here);  // as it was: the same bytes may come better later
    next_ = page.start;
    return Step::stop;
  }
  wanted_ = 0;
  const Step step = deliver(record_, record_start_, behind, visit);
  record_.clear();
  if (record_.capacity() > buffer_to_keep) record_.shrink_to_fit();
  return step;
}

WalReader::Step WalReader::read_record(const Page& page, const Visit& visit) {
  const std::size_t at = next_.value - page.start.value;
  const std::size_t space = wal_page_size - at;
  const base::View there = page.bytes.subspan(std::min(at, page.bytes.size()));
  if (there.size() < sizeof(std::uint32_t)) return Step::more;
  const std::size_t length = load<std::uint32_t>(there.data());
  if (length < record_header_size || length > largest_record) return Step::stop;
  const std::size_t needed = std::min(length, space);
  if (there.size() < needed) return Step::more;
  if (needed >= record_header_size && !follows(there, next_)) return Step::stop;
  if (length <= space) {
    const base::View record = there.first(length);
    if (!crc_is_right(record)) return Step::stop;
    return deliver(record, next_, {next_.value + length}, visit);
  }
  // The claimed length is not believed yet: memory grows as bytes come.
  record_.assign(there.begin(), there.end());
  wanted_ = length;
  record_start_ = next_;
  next_ = {page.start.value + wal_page_size};
  return Step::on;
}

/// Every record names the one before it. Bytes that a file held earlier may be sound records, but
/// do not follow.
bool WalReader::follows(base::View header, Lsn start) const {
  const Lsn named{load<std::uint64_t>(header.data() + previous_at)};
  return previous_ ? named == previous_ : named < start;
}

WalReader::Step WalReader::deliver(base::View bytes, Lsn start, Lsn behind, const Visit& visit) {
  WalRecord record;
  record.start = start;
  record.end = {aligned(behind.value)};
  record.previous = {load<std::uint64_t>(bytes.data() + previous_at)};
  record.transaction = load<std::uint32_t>(bytes.data() + transaction_at);
  record.resource_manager = bytes[resource_manager_at];
  record.info = bytes[info_at];
  record.major = major_version_of_magic(magic_).value_or(0);
  record.body = bytes.subspan(record_header_size);
  if (is_switch(record)) {
    const std::uint64_t into = record.end.value % size_.bytes;
    if (into != 0) record.end.value += size_.bytes - into;
  }
  next_ = record.end;
  end_ = record.end;
  previous_ = start;
  synchronised_ = true;
  return start < start_ || visit(record) ? Step::on : Step::stop;
}

}  // namespace holdfast::postgres
