// event_of of wal_reader.h: the few records that restore targets look for.

#include "base/error.h"
#include "postgres/transaction_record.h"
#include "postgres/wal_reader.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint8_t xlog_manager = 0;
constexpr std::uint8_t transaction_manager = 1;
constexpr std::uint8_t restore_point_info = 0x70;  // XLOG_RESTORE_POINT (catalog/pg_control.h)
constexpr std::size_t restore_point_name_size = 64;

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
  const TransactionEnd end =
      read_transaction_end(main_data(record), record.info, record.major,
                           fmt::format("the transaction record at {}", to_string(record.start)));
  event.time = end.time;
  const std::size_t number_size = sizeof(std::uint32_t);
  event.subtransactions.reserve(end.subtransactions.size() / number_size);
  for (std::size_t at = 0; at < end.subtransactions.size(); at += number_size) {
    event.subtransactions.push_back(base::load<std::uint32_t>(end.subtransactions.data() + at));
  }
  if (end.prepared != 0) event.transaction = end.prepared;
  return event;
}

WalEvent restore_point(const WalRecord& record) {
  WalEvent event = started_event(record, WalEvent::Kind::restore_point);
  base::ByteReader from(main_data(record),
                        fmt::format("the restore point at {}", to_string(record.start)));
  event.time = wal_time(from);
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
  switch (record.info & transaction_operation::mask) {
    case transaction_operation::commit:
    case transaction_operation::commit_prepared:
      return end_of_transaction(record, WalEvent::Kind::commit);
    case transaction_operation::abort:
    case transaction_operation::abort_prepared:
      return end_of_transaction(record, WalEvent::Kind::abort);
    default:
      return std::nullopt;
  }
}

}  // namespace holdfast::postgres
