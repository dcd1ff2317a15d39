#include "mount/page_source.h"

#include <algorithm>

namespace holdfast::mount {

namespace {

constexpr std::size_t frames_kept = 96;  // 24 MiB
constexpr std::size_t packs_kept_open = 32;

}  // namespace

PageSource::PageSource(const repository::Repository& repository, std::string directory)
    : repository_(repository), directory_(std::move(directory)) {}

/// With the mutex held.
std::shared_ptr<const base::Bytes> PageSource::look_up(const Key& key) {
  const auto found = where_.find(key);
  if (found == where_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found->second);
  return found->second->bytes;
}

/// With the mutex held.
void PageSource::keep(const Key& key, std::shared_ptr<const base::Bytes> bytes) {
  if (where_.contains(key)) return;
  kept_.push_front({key, std::move(bytes)});
  where_[key] = kept_.begin();
  if (kept_.size() <= frames_kept) return;
  where_.erase(kept_.back().key);
  kept_.pop_back();
}

std::unique_ptr<PageSource::OpenPack> PageSource::take_pack(const repository::PackId& pack) {
  {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::ranges::find_if(idle_, [&](const auto& each) { return each->id == pack; });
    if (found != idle_.end()) {
      auto taken = std::move(*found);
      idle_.erase(found);
      return taken;
    }
  }
  return std::make_unique<OpenPack>(repository_, directory_, pack);
}

void PageSource::give_back(std::unique_ptr<OpenPack> pack) {
  const std::lock_guard lock(mutex_);
  idle_.push_front(std::move(pack));
  if (idle_.size() > packs_kept_open) idle_.pop_back();
}

/// Brings a frame, and up to `ahead` behind it, into the cache. A pack that failed is not given
/// back: the next one opens it anew.
void PageSource::fetch(const Key& key, std::uint32_t ahead) {
  auto pack = take_pack(key.first);
  const std::uint32_t end = pack->reader.data_frames();
  const std::uint32_t count =
      key.second < end ? std::min(ahead + 1, end - key.second) : 1;  // beyond: refused by fetch
  pack->reader.fetch(key.second, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    auto bytes = std::make_shared<base::Bytes>(pack->reader.raw_size(key.second + i));
    pack->reader.decode(key.second + i, pack->decompressor, *bytes);
    const std::lock_guard lock(mutex_);
    keep({key.first, key.second + i}, std::move(bytes));
    if (i == 0) fetched_.notify_all();
  }
  give_back(std::move(pack));
}

std::shared_ptr<const base::Bytes> PageSource::frame(const repository::PackId& pack,
                                                     std::uint32_t frame, std::uint32_t ahead) {
  const Key key{pack, frame};
  last_demand_ = std::chrono::steady_clock::now().time_since_epoch().count();
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (auto found = look_up(key)) return found;
      if (being_fetched_.contains(key)) {
        fetched_.wait(lock, [&] { return where_.contains(key) || !being_fetched_.contains(key); });
        if (auto found = look_up(key)) return found;
        continue;  // it failed for the other one: see what it is
      }
      being_fetched_.insert(key);
    }
    const auto done = [&] {
      const std::lock_guard lock(mutex_);
      being_fetched_.erase(key);
      fetched_.notify_all();
    };
    try {
      fetch(key, ahead);
    } catch (...) {
      done();
      throw;
    }
    done();
    last_demand_ = std::chrono::steady_clock::now().time_since_epoch().count();
  }
}

}  // namespace holdfast::mount
