#include "operations/page_hashes.h"

#include "base/error.h"

namespace holdfast::operations {

namespace {

/// 128 MiB of hashes: of 128 GiB of pages.
constexpr std::size_t slots_limit = 16 << 20;

}  // namespace

PageHashes::Hashes PageHashes::read(const repository::PackId& pack) const {
  try {
    base::Decompressor decompressor;
    repository::PackReader reader(repository_.store(), directory_, repository_.protection(), pack);
    return std::make_shared<const std::vector<std::uint64_t>>(
        reader.description(decompressor).hashes);
  } catch (const base::Error& error) {
    if (error.code() != base::Code::corrupt) throw;
    return std::make_shared<const std::vector<std::uint64_t>>();
  }
}

PageHashes::Hashes PageHashes::of(const repository::PackId& pack) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(pack);
    if (found != known_.end()) return found->second;
  }
  Hashes hashes = read(pack);
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = known_.try_emplace(pack, hashes);
  if (!is_new) return entry->second;
  oldest_first_.push_back(pack);
  slots_ += hashes->size();
  while (slots_ > slots_limit && oldest_first_.size() > 1) {
    const auto oldest = known_.find(oldest_first_.front());
    slots_ -= oldest->second->size();
    known_.erase(oldest);
    oldest_first_.pop_front();
  }
  return hashes;
}

}  // namespace holdfast::operations
