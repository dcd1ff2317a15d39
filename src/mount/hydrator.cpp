#include "mount/hydrator.h"

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "repository/pack_walk.h"

namespace holdfast::mount {

namespace {

using repository::PackExtent;
using repository::PackId;
using repository::page_bytes;
using Clock = std::chrono::steady_clock;

// After so many bytes or files what was brought is made durable and becomes ordinary files: bounds
// memory and open files.
constexpr std::uint64_t batch_bytes = std::uint64_t{1} << 30;
constexpr std::size_t batch_files = 4000;
/// Nobody has waited for a page for so long: go on.
constexpr auto quiet = std::chrono::milliseconds(5);
/// But somebody always waits on a busy server: go on all the same after this.
constexpr auto patience = std::chrono::milliseconds(50);
constexpr auto retry_after = std::chrono::seconds(1);

struct Stopped {};

}  // namespace

struct Hydrator::Batch {
  std::vector<std::shared_ptr<BackedFile>> files;
  std::map<PackId, std::vector<PackExtent>> packs;
  std::uint64_t bytes = 0;
};

Hydrator::Hydrator(const repository::Repository& repository, std::string directory,
                   const Image& image, Tree& tree, const PageSource& demand)
    : repository_(repository),
      directory_(std::move(directory)),
      image_(image),
      tree_(tree),
      demand_(demand),
      buffer_(repository::frame_bytes) {}

void Hydrator::tell() {
  told_ = Clock::now();
  (*say_)(progress_);
}

/// Waits while it is paused or somebody is waiting for pages.
void Hydrator::give_way() {
  const auto began = Clock::now();
  while (true) {
    if (stop_->stop_requested()) throw Stopped();
    const bool paused = (*is_paused_)();
    const auto now = Clock::now();
    if (now - told_ > std::chrono::milliseconds(500)) tell();
    if (!paused && (now - demand_.last_demand() > quiet || now - began > patience)) return;
    std::this_thread::sleep_for(paused ? std::chrono::milliseconds(100)
                                       : std::chrono::milliseconds(1));
  }
}

void Hydrator::hydrate_pack(const Batch& batch, const PackId& pack,
                            std::span<const PackExtent> extents) {
  repository::PackReader reader(repository_.store(), directory_, repository_.protection(), pack);
  repository::PackWalk walk(reader, pack, decompressor_, buffer_);
  while (!extents.empty()) {
    const std::size_t count = repository::PackWalk::near(extents);
    std::vector<PackExtent> wanted;
    for (const PackExtent& extent : extents.first(count)) {
      if (batch.files[extent.file]->lacks(extent.first_page, extent.pages)) {
        wanted.push_back(extent);
      }
    }
    extents = extents.subspan(count);
    if (wanted.empty()) continue;
    give_way();
    walk.visit(wanted, [&](const PackExtent& part, base::View pages) {
      batch.files[part.file]->fill(part.first_page, pages);
      progress_.done += pages.size();
    });
  }
}

void Hydrator::hydrate(Batch& batch) {
  for (auto& [pack, extents] : batch.packs) {
    std::ranges::sort(extents, {}, &PackExtent::slot);
    hydrate_pack(batch, pack, extents);
  }
  for (const auto& file : batch.files) file->fill_zero_runs();
  tree_.checkpoint();
  batch = {};
}

void Hydrator::hydrate_shard(std::size_t index) {
  const auto shard = image_.shard(index);
  Batch batch;
  for (const repository::FileEntry& entry : shard->files) {
    auto file = tree_.unfinished({shard, &entry});
    if (file == nullptr) continue;
    const auto number = static_cast<std::uint32_t>(batch.files.size());
    std::uint64_t page = 0;
    for (const repository::Run& run : entry.runs) {
      if (run.pack) {
        batch.packs[*run.pack].push_back(
            {run.slot, static_cast<std::uint32_t>(run.pages), number, page});
      }
      page += run.pages;
    }
    batch.files.push_back(std::move(file));
    batch.bytes += entry.size;
    if (batch.bytes >= batch_bytes || batch.files.size() >= batch_files) hydrate(batch);
  }
  hydrate(batch);
}

void Hydrator::run(const std::stop_token& stop, const std::function<bool()>& is_paused,
                   const std::function<void(const Progress&)>& say) {
  stop_ = &stop;
  is_paused_ = &is_paused;
  say_ = &say;
  for (const auto& shard : image_.map().shards) progress_.total += shard.bytes;
  try {
    for (std::size_t i = 0; i < image_.map().shards.size();) {
      give_way();
      try {
        hydrate_shard(i);
        done_before_ += image_.map().shards[i].bytes;
        progress_.trouble.clear();
        ++i;
      } catch (const base::Error& error) {
        progress_.trouble = error.message();
        tell();
        const auto until = Clock::now() + retry_after;
        while (Clock::now() < until) {
          if (stop.stop_requested()) throw Stopped();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      }
      progress_.done = done_before_;
    }
    progress_.complete = true;
  } catch (const Stopped&) {
    tree_.checkpoint();
  }
  tell();
}

}  // namespace holdfast::mount
