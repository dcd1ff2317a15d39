#include "operations/read_pages.h"

#include <algorithm>
#include <thread>

#include "postgres/page.h"

namespace holdfast::operations {

namespace {

constexpr std::size_t first_pages_kept = 16;

/// Reads a failing page again until it passes, ends, or stands still. True if it is sound (or
/// gone).
bool passes_when_read_again(const base::Fd& file, const SourceFile& source, std::uint64_t offset,
                            base::MutableView page, std::uint32_t block) {
  constexpr int readings = 20;
  constexpr int still_readings = 5;
  base::Bytes again(page.size());
  int still = 0;
  for (int reading = 0; reading < readings; ++reading) {
    // A writer needs a moment to finish; this happens for torn and for damaged pages only.
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (base::read_at(file, again, offset, source.path) != again.size()) return true;  // truncated
    if (postgres::page_is_sound(again, block)) {
      std::ranges::copy(again, page.begin());
      return true;
    }
    still = std::ranges::equal(again, page) ? still + 1 : 0;
    std::ranges::copy(again, page.begin());
    if (still == still_readings) return false;
  }
  return true;  // it changes all the time: somebody is writing it
}

}  // namespace

std::size_t read_pages(const base::Fd& file, const SourceFile& source, std::uint64_t offset,
                       base::MutableView into, DamagedFile& damage) {
  const std::size_t size = base::read_at(file, into, offset, source.path);
  if (!source.check_pages) return size;
  for (std::size_t at = 0; at + postgres::page_size <= size; at += postgres::page_size) {
    const base::MutableView page = into.subspan(at, postgres::page_size);
    const std::uint64_t number = (offset + at) / postgres::page_size;
    const auto block = source.first_block + static_cast<std::uint32_t>(number);
    if (postgres::page_is_sound(page, block)) continue;
    if (passes_when_read_again(file, source, offset + at, page, block)) continue;
    ++damage.pages;
    if (damage.first.size() < first_pages_kept) damage.first.push_back(number);
  }
  return size;
}

}  // namespace holdfast::operations
