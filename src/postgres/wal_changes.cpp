#include "postgres/wal_changes.h"

#include "base/error.h"
#include "postgres/transaction_record.h"

namespace holdfast::postgres {

namespace {

using Kind = FileChange::Kind;
using Visit = std::function<void(const FileChange&)>;

constexpr int oldest_major = 13;
constexpr int newest_major = 18;
constexpr std::uint8_t main_fork = 0;
constexpr std::uint8_t free_space_fork = 1;
constexpr std::uint8_t visibility_fork = 2;
constexpr std::uint8_t last_fork = 3;

/// XLR_SPECIAL_REL_UPDATE: it changes relation files in ways that block references do not tell.
constexpr std::uint8_t special_update = 0x01;

std::uint32_t number(base::View data, std::size_t at) {
  return base::load<std::uint32_t>(data.data() + at);
}

std::uint8_t operation(const WalRecord& record) {
  return record.info & 0xF0;
}

FileChange change(Kind kind, const RelationId& relation) {
  FileChange result;
  result.kind = kind;
  result.relation = relation;
  return result;
}

bool storage_change(const WalRecord& record, base::View data, const Visit& visit) {
  constexpr std::uint8_t create = 0x10;
  constexpr std::uint8_t truncate = 0x20;
  if (operation(record) == create && data.size() == 16) {  // xl_smgr_create
    FileChange created = change(Kind::create_file, load_relation(data.data()));
    if (number(data, 12) > last_fork) return false;
    created.fork = static_cast<std::uint8_t>(number(data, 12));
    visit(created);
    return true;
  }
  if (operation(record) != truncate || data.size() != 20) return false;  // xl_smgr_truncate
  FileChange cut = change(Kind::truncate, load_relation(data.data() + 4));
  const std::uint32_t forks = number(data, 16);
  if (forks == 0 || forks > 7) return false;
  cut.block = number(data, 0);
  if ((forks & 1) != 0) visit(cut);
  cut.block = 0;
  cut.fork = visibility_fork;
  if ((forks & 2) != 0) visit(cut);
  cut.fork = free_space_fork;
  if ((forks & 4) != 0) visit(cut);
  return true;
}

bool dropped_database(base::View data, const Visit& visit) {
  if (data.size() < 8) return false;
  const std::uint32_t tablespaces = number(data, 4);
  if (data.size() != 8 + std::uint64_t{4} * tablespaces) return false;
  for (std::size_t i = 0; i < tablespaces; ++i) {
    visit(change(Kind::drop_database, {number(data, 8 + 4 * i), number(data, 0), 0}));
  }
  return true;
}

/// commands/dbcommands_xlog.h. In 15 "create by WAL log" took the number that was "drop".
bool database_change(const WalRecord& record, base::View data, const Visit& visit) {
  constexpr std::uint8_t create = 0x00;
  const std::uint8_t drop = record.major >= 15 ? 0x20 : 0x10;
  if (operation(record) == drop) return dropped_database(data, visit);
  const bool is_copy = operation(record) == create;
  if (!is_copy && (record.major < 15 || operation(record) != 0x10)) return false;
  if (data.size() != (is_copy ? 16U : 8U)) return false;
  visit(change(is_copy ? Kind::create_database : Kind::create_database_by_log,
               {number(data, 4), number(data, 0), 0}));
  return true;
}

bool tablespace_change(const WalRecord& record, base::View data, const Visit& visit) {
  constexpr std::uint8_t create = 0x00;
  constexpr std::uint8_t drop = 0x10;
  if (operation(record) != create && operation(record) != drop) return false;
  if (data.size() < 4) return false;
  const bool is_new = operation(record) == create;
  visit(change(is_new ? Kind::create_tablespace : Kind::drop_tablespace, {number(data, 0), 0, 0}));
  return true;
}

bool relation_map_change(const WalRecord& record, base::View data, const Visit& visit) {
  if (operation(record) != 0 || data.size() < 12) return false;
  visit(change(Kind::relation_map, {number(data, 4), number(data, 0), 0}));
  return true;
}

/// catalog/pg_control.h; xl_parameter_change in access/xlog_internal.h.
bool xlog_change(const WalRecord& record, base::View data, const Visit& visit) {
  constexpr std::uint8_t parameter_change = 0x60;
  constexpr std::uint8_t full_page_writes_change = 0x80;
  FileChange result;
  if (operation(record) == parameter_change) {
    if (data.size() < 26) return false;
    result.kind = Kind::parameters;
    result.value = number(data, 20);
    result.flag = data[24] != 0;
    visit(result);
  } else if (operation(record) == full_page_writes_change) {
    if (data.empty()) return false;
    result.kind = Kind::full_page_writes;
    result.flag = data[0] != 0;
    visit(result);
  }
  return (record.info & special_update) == 0;
}

bool transaction_change(const WalRecord& record, base::View data, const Visit& visit) {
  namespace operations = transaction_operation;
  switch (record.info & operations::mask) {
    case operations::commit:
    case operations::commit_prepared:
    case operations::abort:
    case operations::abort_prepared:
      break;
    case operations::prepare:
    case operations::assignment:
    case operations::invalidations:
      return (record.info & special_update) == 0;
    default:
      return false;
  }
  if ((record.info & operations::has_parts) == 0) return true;
  try {
    const TransactionEnd end =
        read_transaction_end(data, record.info, record.major, "a transaction record");
    for (std::size_t at = 0; at < end.relations.size(); at += 12) {
      visit(change(Kind::drop_relation, load_relation(end.relations.data() + at)));
    }
  } catch (const base::Error& error) {
    if (error.code() != base::Code::corrupt) throw;
    return false;
  }
  return true;
}

}  // namespace

bool changes_of(const WalRecord& record, const Visit& visit) {
  if (record.major < oldest_major || record.major > newest_major) return false;
  if (record.resource_manager > resource_manager::last) return false;
  FileChange changed;
  const std::optional<base::View> data = read_body(record, [&](const BlockReference& block) {
    changed.relation = block.relation;
    changed.fork = block.fork;
    changed.block = block.block;
    changed.has_image = block.has_image;
    changed.will_init = block.will_init;
    visit(changed);
  });
  if (!data) return false;
  switch (record.resource_manager) {
    case resource_manager::xlog:
      return xlog_change(record, *data, visit);
    case resource_manager::transaction:
      return transaction_change(record, *data, visit);
    case resource_manager::storage:
      return storage_change(record, *data, visit);
    case resource_manager::database:
      return database_change(record, *data, visit);
    case resource_manager::tablespace:
      return tablespace_change(record, *data, visit);
    case resource_manager::relation_map:
      return relation_map_change(record, *data, visit);
    default:
      return (record.info & special_update) == 0;
  }
}

}  // namespace holdfast::postgres
