#include "postgres/page.h"

#include <algorithm>
#include <array>
#include <cstring>

// A clone per instruction set is chosen by an ifunc, which runs before a sanitizer is ready for it.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HOLDFAST_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define HOLDFAST_CLONES
#endif

namespace holdfast::postgres {

namespace {

constexpr std::size_t lsn_at = 0;       // pd_lsn
constexpr std::size_t checksum_at = 8;  // pd_checksum
constexpr std::size_t upper_at = 14;    // pd_upper

// The checksum runs 32 FNV-1a-like hashes side by side, each over every 32nd word of the page
// (storage/checksum_impl.h). The lanes begin with these numbers.
constexpr std::size_t lanes = 32;
constexpr std::size_t rows = page_size / (lanes * sizeof(std::uint32_t));
constexpr std::uint32_t prime = 16777619;
alignas(64) constexpr std::array<std::uint32_t, lanes> first_state = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756};

// Eight lanes in one register where there is AVX2, in two halves elsewhere: written as vectors, the
// state surely stays in registers from the first row to the last.
using Lanes = std::uint32_t __attribute__((vector_size(32)));
static_assert(lanes == 4 * sizeof(Lanes) / sizeof(std::uint32_t));

struct State {
  Lanes a, b, c, d;
};

__attribute__((always_inline)) inline void mix(Lanes& state, const Lanes& words) {
  const Lanes mixed = state ^ words;
  state = (mixed * prime) ^ (mixed >> 17);
}

__attribute__((always_inline)) inline void mix_row(State& state, const std::uint8_t* row) {
  Lanes words[4];
  std::memcpy(&words, row, sizeof words);
  mix(state.a, words[0]);
  mix(state.b, words[1]);
  mix(state.c, words[2]);
  mix(state.d, words[3]);
}

/// Hashes a page whose first row stands apart (there, pd_checksum counts as zero).
HOLDFAST_CLONES std::uint32_t hash_page(const std::uint8_t* first_row, const std::uint8_t* page) {
  State state;
  std::memcpy(&state, first_state.data(), sizeof state);
  mix_row(state, first_row);
  for (std::size_t row = 1; row < rows; ++row) {
    mix_row(state, page + row * lanes * sizeof(std::uint32_t));
  }
  // Two more rounds of zeros, so that the last words spread over all bits as well.
  const Lanes zero = {};
  for (int round = 0; round < 2; ++round) {
    mix(state.a, zero);
    mix(state.b, zero);
    mix(state.c, zero);
    mix(state.d, zero);
  }
  const Lanes folded = state.a ^ state.b ^ state.c ^ state.d;
  std::uint32_t result = 0;
  for (std::size_t i = 0; i < sizeof(Lanes) / sizeof(std::uint32_t); ++i) result ^= folded[i];
  return result;
}

}  // namespace

bool is_zero_page(base::View page) {
  // Every byte equals the next one and the first is zero: memcmp is the fastest way to ask.
  return page.empty() ||
         (page[0] == 0 && std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0);
}

Lsn page_lsn(base::View page) {
  const auto high = base::load<std::uint32_t>(page.data() + lsn_at);
  const auto low = base::load<std::uint32_t>(page.data() + lsn_at + 4);
  return {std::uint64_t{high} << 32 | low};
}

std::uint16_t page_checksum(base::View page, std::uint32_t block) {
  std::array<std::uint8_t, lanes * sizeof(std::uint32_t)> first_row;
  std::copy_n(page.data(), first_row.size(), first_row.data());
  base::store<std::uint16_t>(first_row.data() + checksum_at, 0);
  const std::uint32_t hash = hash_page(first_row.data(), page.data()) ^ block;
  return static_cast<std::uint16_t>(hash % 65535 + 1);  // never 0, which means "none"
}

bool page_is_sound(base::View page, std::uint32_t block) {
  if (page.size() != page_size) return false;
  // PostgreSQL takes a page with pd_upper 0 for a new one. A new page is zero throughout, though;
  // one field that is zero may be damage (TRAPS BK6).
  if (base::load<std::uint16_t>(page.data() + upper_at) == 0) return is_zero_page(page);
  const auto stored = base::load<std::uint16_t>(page.data() + checksum_at);
  return stored == page_checksum(page, block);
}

}  // namespace holdfast::postgres
