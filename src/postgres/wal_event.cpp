// event_of of wal_reader.h: the few records that restore targets look for.

#include <limits>

#include "base/error.h"
#include "postgres/wal_reader.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint8_t xlog_manager = 0;
constexpr std::uint8_t transaction_manager = 1;
constexpr std::uint8_t restore_point_info = 0x70;  // XLOG_RESTORE_POINT (catalog/pg_control.h)
constexpr std::size_t restore_point_name_size = 64;

// access/xact.h: the kinds of transaction records, and which parts a long one has.
constexpr std::uint8_t operation_mask = 0x70;
constexpr std::uint8_t has_more = 0x80;
constexpr std::uint8_t operation_commit = 0x00;
constexpr std::uint8_t operation_abort = 0x20;
constexpr std::uint8_t operation_commit_prepared = 0x30;
constexpr std::uint8_t operation_abort_prepared = 0x40;
constexpr std::uint32_t part_database = 1 << 0;
constexpr std::uint32_t part_subtransactions = 1 << 1;
constexpr std::uint32_t part_relations = 1 << 2;
constexpr std::uint32_t part_invalidations = 1 << 3;
constexpr std::uint32_t part_prepared = 1 << 4;
constexpr std::uint32_t part_statistics = 1 << 8;

/// PostgreSQL counts from 2000-01-01.
base::Timestamp time_of(base::ByteReader& from) {
  constexpr std::int64_t epoch = 946'684'800'000'000;
  const auto since = static_cast<std::int64_t>(from.u64());
  if (since > std::numeric_limits<std::int64_t>::max() - epoch) from.corrupt("an impossible time");
  return base::Timestamp(base::Microseconds(since + epoch));
}

/// The main data of a record. It comes last, behind short headers that tell its length; block
/// references do not occur in the records that count here (access/xlogrecord.h).
base::View main_data(const WalRecord& record) {
  base::ByteReader from(record.body, fmt::format("the WAL record at {}", to_string(record.start)));
  for (;;) {
    switch (from.u8()) {
      case 252:  // top-level transaction
        from.raw(4);
        break;
      case 253:  // replication origin
        from.raw(2);
        break;
      case 254: {
        const std::size_t length = from.u32();
        const base::View data = from.raw(length);
        from.expect_end();
        return data;
      }
      case 255: {
        const std::size_t length = from.u8();
        const base::View data = from.raw(length);
        from.expect_end();
        return data;
      }
      default:
        from.corrupt("it has parts that its kind cannot have");
    }
  }
}

/// A count, where each of what it counts takes `item_size` bytes of what is left.
std::size_t count(base::ByteReader& from, std::size_t item_size) {
  const std::size_t items = from.u32();
  if (items > from.left() / item_size) from.corrupt("it counts more than it holds");
  return items;
}

void skip_array(base::ByteReader& from, std::size_t item_size) {
  from.raw(count(from, item_size) * item_size);
}

/// Reads the optional parts as far as they are of interest (ParseCommitRecord in xactdesc.c).
void read_parts(base::ByteReader& from, int major, WalEvent& event) {
  constexpr std::size_t relation_size = 12;
  constexpr std::size_t invalidation_size = 16;
  const std::size_t statistics_size = major >= 18 ? 16 : 12;
  const std::uint32_t parts = from.u32();
  if ((parts & part_database) != 0) from.raw(8);
  if ((parts & part_subtransactions) != 0) {
    const std::size_t items = count(from, sizeof(std::uint32_t));
    event.subtransactions.reserve(items);
    for (std::size_t i = 0; i < items; ++i) event.subtransactions.push_back(from.u32());
  }
  if ((parts & part_prepared) == 0) return;
  if ((parts & part_relations) != 0) skip_array(from, relation_size);
  if ((parts & part_statistics) != 0) skip_array(from, statistics_size);
  if ((parts & part_invalidations) != 0) skip_array(from, invalidation_size);
  event.transaction = from.u32();
}

WalEvent started_event(const WalRecord& record, WalEvent::Kind kind) {
  WalEvent event;
  event.kind = kind;
  event.start = record.start;
  event.end = record.end;
  event.transaction = record.transaction;
  return event;
}

WalEvent end_of_transaction(const WalRecord& record, WalEvent::Kind kind) {
  WalEvent event = started_event(record, kind);
  base::ByteReader from(main_data(record),
                        fmt::format("the transaction record at {}", to_string(record.start)));
  event.time = time_of(from);
  if ((record.info & has_more) != 0) read_parts(from, record.major, event);
  return event;
}

WalEvent restore_point(const WalRecord& record) {
  WalEvent event = started_event(record, WalEvent::Kind::restore_point);
  base::ByteReader from(main_data(record),
                        fmt::format("the restore point at {}", to_string(record.start)));
  event.time = time_of(from);
  const std::string_view name = base::text(from.raw(restore_point_name_size));
  event.name = name.substr(0, name.find('\0'));
  return event;
}

}  // namespace

std::optional<WalEvent> event_of(const WalRecord& record) {
  if (record.resource_manager == xlog_manager) {
    if ((record.info & 0xF0) == restore_point_info) return restore_point(record);
    return std::nullopt;
  }
  if (record.resource_manager != transaction_manager) return std::nullopt;
  switch (record.info & operation_mask) {
    case operation_commit:
    case operation_commit_prepared:
      return end_of_transaction(record, WalEvent::Kind::commit);
    case operation_abort:
    case operation_abort_prepared:
      return end_of_transaction(record, WalEvent::Kind::abort);
    default:
      return std::nullopt;
  }
}

}  // namespace holdfast::postgres
