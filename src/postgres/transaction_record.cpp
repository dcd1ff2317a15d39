#include "postgres/transaction_record.h"

#include <limits>

namespace holdfast::postgres {

namespace {

// access/xact.h: which parts a record has. They come in this order.
constexpr std::uint32_t part_database = 1 << 0;
constexpr std::uint32_t part_subtransactions = 1 << 1;
constexpr std::uint32_t part_relations = 1 << 2;
constexpr std::uint32_t part_statistics = 1 << 8;  // from 15; before the invalidations
constexpr std::uint32_t part_invalidations = 1 << 3;
constexpr std::uint32_t part_prepared = 1 << 4;

/// An array behind its count, where each item takes `item_size` bytes of what is left.
base::View array(base::ByteReader& from, std::size_t item_size) {
  const std::size_t items = from.u32();
  if (items > from.left() / item_size) from.corrupt("it counts more than it holds");
  return from.raw(items * item_size);
}

}  // namespace

base::Timestamp wal_time(base::ByteReader& from) {
  constexpr std::int64_t epoch = 946'684'800'000'000;
  const auto since = static_cast<std::int64_t>(from.u64());
  if (since > std::numeric_limits<std::int64_t>::max() - epoch) from.corrupt("an impossible time");
  return base::Timestamp(base::Microseconds(since + epoch));
}

TransactionEnd read_transaction_end(base::View data, std::uint8_t info, int major,
                                    std::string_view what) {
  constexpr std::size_t relation_size = 12;
  constexpr std::size_t invalidation_size = 16;
  base::ByteReader from(data, what);
  TransactionEnd end;
  end.statistics_size = major >= 18 ? 16 : 12;
  end.time = wal_time(from);
  if ((info & transaction_operation::has_parts) == 0) return end;
  const std::uint32_t parts = from.u32();
  if ((parts & part_database) != 0) from.raw(8);
  if ((parts & part_subtransactions) != 0) {
    end.subtransactions = array(from, sizeof(std::uint32_t));
  }
  if ((parts & part_relations) != 0) end.relations = array(from, relation_size);
  if ((parts & part_statistics) != 0) end.statistics = array(from, end.statistics_size);
  if ((parts & part_prepared) == 0) return end;
  if ((parts & part_invalidations) != 0) array(from, invalidation_size);
  end.prepared = from.u32();
  return end;
}

}  // namespace holdfast::postgres
