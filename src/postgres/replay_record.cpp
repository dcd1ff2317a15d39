#include "postgres/replay_record.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/wal_body.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint8_t operation_mask = 0xF0;
constexpr std::uint8_t create_tablespace = 0x00;  // XLOG_TBLSPC_CREATE
constexpr std::uint8_t drop_tablespace = 0x10;    // XLOG_TBLSPC_DROP
constexpr std::uint8_t parameter_change = 0x60;   // XLOG_PARAMETER_CHANGE

/// ControlFileData.MaxConnections (catalog/pg_control.h), and four more behind it: see
/// control_file.cpp.
constexpr std::size_t limits_in_control = 180;

ServerLimits load_limits(const std::uint8_t* at) {
  const auto number = [at](std::size_t index) {
    return base::load<std::uint32_t>(at + index * sizeof(std::uint32_t));
  };
  return {number(0), number(1), number(2), number(3), number(4)};
}

base::View main_data(const WalRecord& record, std::size_t least) {
  const auto data = read_body(record, [](const BlockReference&) {});
  if (!data || data->size() < least) {
    base::fail(base::Code::corrupt, "the WAL record at {} does not parse", to_string(record.start));
  }
  return *data;
}

}  // namespace

std::optional<TablespaceRecord> tablespace_record_of(const WalRecord& record) {
  if (record.resource_manager != resource_manager::tablespace) return std::nullopt;
  const unsigned operation = record.info & operation_mask;
  if (operation != create_tablespace && operation != drop_tablespace) return std::nullopt;
  const base::View data = main_data(record, sizeof(std::uint32_t));
  TablespaceRecord result;
  result.creates = operation == create_tablespace;
  result.oid = base::load<std::uint32_t>(data.data());
  result.start = record.start;
  result.end = record.end;
  if (result.creates) {
    const std::string_view rest = base::text(data.subspan(tablespace_location_at));
    result.location = rest.substr(0, rest.find('\0'));
  }
  return result;
}

void ServerLimits::raise_to(const ServerLimits& other) {
  const auto raise = [](std::uint32_t& mine, std::uint32_t theirs) {
    mine = std::max(mine, theirs);
  };
  raise(max_connections, other.max_connections);
  raise(max_worker_processes, other.max_worker_processes);
  raise(max_wal_senders, other.max_wal_senders);
  raise(max_prepared_transactions, other.max_prepared_transactions);
  raise(max_locks_per_transaction, other.max_locks_per_transaction);
}

std::optional<ServerLimits> limits_of(const WalRecord& record) {
  if (record.resource_manager != resource_manager::xlog ||
      (record.info & operation_mask) != parameter_change) {
    return std::nullopt;
  }
  return load_limits(main_data(record, 5 * sizeof(std::uint32_t)).data());
}

ServerLimits limits_in_control_file(base::View bytes) {
  parse_control_file(bytes);
  return load_limits(bytes.data() + limits_in_control);
}

}  // namespace holdfast::postgres
