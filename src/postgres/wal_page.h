#pragma once

// The headers of WAL pages (access/xlog_internal.h), as numbers and unchecked.

#include <cstdint>

#include "base/bytes.h"
#include "postgres/control_file.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

constexpr std::size_t wal_page_size = 8192;
constexpr std::size_t wal_short_header_size = 24;
constexpr std::size_t wal_long_header_size = 40;

namespace wal_page_flags {
constexpr unsigned first_is_continuation = 1;  ///< XLP_FIRST_IS_CONTRECORD
constexpr unsigned long_header = 2;            ///< XLP_LONG_HEADER
constexpr unsigned overwrites_record = 8;      ///< XLP_FIRST_IS_OVERWRITE_CONTRECORD
constexpr unsigned known = 15;
}  // namespace wal_page_flags

struct WalPageHeader {
  std::uint16_t magic = 0;
  std::uint16_t info = 0;
  Timeline timeline;
  Lsn address;
  std::uint32_t remaining = 0;  ///< how much of the record that began before is still to come
};

/// `page` has at least wal_short_header_size bytes.
inline WalPageHeader wal_page_header(base::View page) {
  const std::uint8_t* at = page.data();
  return {base::load<std::uint16_t>(at), base::load<std::uint16_t>(at + 2),
          Timeline{base::load<std::uint32_t>(at + 4)}, Lsn{base::load<std::uint64_t>(at + 8)},
          base::load<std::uint32_t>(at + 16)};
}

/// What the first page of a segment says in addition.
struct WalLongHeader {
  SystemId system_id;
  SegmentSize segment_size;
  std::uint32_t block_size = 0;
};

/// `page` has at least wal_long_header_size bytes.
inline WalLongHeader wal_long_header(base::View page) {
  const std::uint8_t* at = page.data();
  return {SystemId{base::load<std::uint64_t>(at + 24)},
          SegmentSize{base::load<std::uint32_t>(at + 32)}, base::load<std::uint32_t>(at + 36)};
}

}  // namespace holdfast::postgres
