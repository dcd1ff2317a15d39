#pragma once

// Pages of relation files (src/include/storage/bufpage.h, checksum_impl.h). The block size is 8192.

#include <cstdint>

#include "base/bytes.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

constexpr std::size_t page_size = 8192;
/// Blocks of one relation file before the next ".1", ".2" begins, as PostgreSQL is shipped.
constexpr std::uint32_t default_segment_blocks = 131072;

/// Every byte is zero (not only the header: TRAPS BK6).
bool is_zero_page(base::View page);
/// pd_lsn: the record that last changed the page. It is stored as two 32-bit halves.
Lsn page_lsn(base::View page);
/// The checksum that the page should carry as block `block` of its relation (counted over all its
/// files). Fast: vectorised where the processor can; a backup computes one for every page.
std::uint16_t page_checksum(base::View page, std::uint32_t block);
/// All-zero pages and right checksums pass. A page with pd_upper 0 that is not all-zero fails.
bool page_is_sound(base::View page, std::uint32_t block);

}  // namespace holdfast::postgres
