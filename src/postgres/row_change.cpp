#include "postgres/row_change.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint8_t operation_mask = 0x70;
// Of the resource manager "heap":
constexpr std::uint8_t heap_insert = 0x00;
constexpr std::uint8_t heap_delete = 0x10;
constexpr std::uint8_t heap_update = 0x20;
constexpr std::uint8_t heap_truncate = 0x30;
constexpr std::uint8_t heap_hot_update = 0x40;
constexpr std::uint8_t heap_in_place = 0x70;
// Of "heap2":
constexpr std::uint8_t heap2_multi_insert = 0x50;

using Kind = RowChange::Kind;

std::optional<Kind> kind_of(const WalRecord& record) {
  const unsigned operation = record.info & operation_mask;
  if (record.resource_manager == resource_manager::heap2) {
    if (operation == heap2_multi_insert) return Kind::inserted;
    return std::nullopt;
  }
  if (record.resource_manager != resource_manager::heap) return std::nullopt;
  switch (operation) {
    case heap_insert:
      return Kind::inserted;
    case heap_delete:
      return Kind::deleted;
    case heap_update:
    case heap_hot_update:
      return Kind::updated;
    case heap_in_place:
      return Kind::updated_in_place;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<RowChange> row_change_of(const WalRecord& record) {
  const std::optional<Kind> kind = kind_of(record);
  if (!kind) return std::nullopt;
  RowChange change;
  change.kind = *kind;
  change.rows = 1;
  bool is_first = true;
  const auto data = read_body(record, [&](const BlockReference& block) {
    if (!is_first) return;
    is_first = false;
    change.relation = block.relation;
    change.block = block.block;
    change.has_image = block.has_image;
  });
  if (!data || is_first) return std::nullopt;
  if (record.resource_manager == resource_manager::heap2) {  // xl_heap_multi_insert
    if (data->size() < 4) return std::nullopt;
    change.rows = base::load<std::uint16_t>(data->data() + 2);
  } else if (*kind == Kind::deleted) {  // xl_heap_delete
    if (data->size() < 6) return std::nullopt;
    change.offset = base::load<std::uint16_t>(data->data() + 4);
  } else if (*kind == Kind::updated_in_place) {  // xl_heap_inplace
    if (data->size() < 2) return std::nullopt;
    change.offset = base::load<std::uint16_t>(data->data());
  }
  return change;
}

std::optional<Truncation> truncation_of(const WalRecord& record) {
  if (record.resource_manager != resource_manager::heap ||
      (record.info & operation_mask) != heap_truncate) {
    return std::nullopt;
  }
  constexpr std::size_t oids_at = 12;  // xl_heap_truncate
  const auto data = read_body(record, [](const BlockReference&) {});
  if (!data || data->size() < oids_at) return std::nullopt;
  const std::size_t count = base::load<std::uint32_t>(data->data() + 4);
  if (count > (data->size() - oids_at) / 4) return std::nullopt;
  Truncation truncation;
  truncation.database = base::load<std::uint32_t>(data->data());
  for (std::size_t i = 0; i < count; ++i) {
    truncation.oids.push_back(base::load<std::uint32_t>(data->data() + oids_at + 4 * i));
  }
  return truncation;
}

}  // namespace holdfast::postgres
