#pragma once

// CRC-32C (Castagnoli), with which PostgreSQL guards WAL records and pg_control (port/pg_crc32c.h).

#include <cstdint>

#include "base/bytes.h"

namespace holdfast::postgres {

/// The CRC of `bytes`; given the CRC of what came before, that of both in a row.
std::uint32_t crc32c(base::View bytes, std::uint32_t before = 0);

/// The same, always by tables: for processors without SSE 4.2, and to test one by the other.
std::uint32_t crc32c_by_tables(base::View bytes, std::uint32_t before = 0);

}  // namespace holdfast::postgres
