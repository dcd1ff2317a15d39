#include "repository/pack_walk.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::repository {

std::size_t PackWalk::near(std::span<const PackExtent> extents) {
  const std::uint32_t first_frame = extents.front().slot.frame();
  std::uint32_t last_frame = first_frame;
  std::size_t count = 0;
  for (; count < extents.size(); ++count) {
    const std::uint32_t from = extents[count].slot.frame();
    const std::uint32_t to = extents[count].last_frame();
    if (count > 0 && (from > last_frame + 1 || to >= first_frame + fetch_frames)) break;
    last_frame = std::max(last_frame, to);
  }
  return count;
}

void PackWalk::visit(std::span<const PackExtent> extents, const Sink& sink) {
  std::vector<PackExtent> active;  // have pages in the next frame
  std::size_t next = 0;
  fetched_end_ = 0;
  while (next < extents.size() || !active.empty()) {
    const std::uint32_t frame =
        active.empty() ? extents[next].slot.frame() : active.front().slot.frame();
    for (; next < extents.size() && extents[next].slot.frame() == frame; ++next) {
      active.push_back(extents[next]);
    }
    if (frame >= fetched_end_) fetch(frame, active, extents.subspan(next));
    const base::MutableView raw = buffer_.first(reader_.raw_size(frame));
    reader_.decode(frame, decompressor_, raw);
    std::vector<PackExtent> going_on;
    for (const PackExtent& extent : active) {
      const std::uint32_t here = std::min(extent.pages, pages_per_frame - extent.slot.page());
      const std::size_t at = extent.slot.page() * page_bytes;
      if (at + here * page_bytes > raw.size()) refuse_slot();
      sink({extent.slot, here, extent.file, extent.first_page}, raw.subspan(at, here * page_bytes));
      if (here == extent.pages) continue;
      going_on.push_back(
          {{extent.slot.value + here}, extent.pages - here, extent.file, extent.first_page + here});
    }
    active = std::move(going_on);
  }
}

/// Brings the frames from `frame` up to the next one that nobody needs.
void PackWalk::fetch(std::uint32_t frame, std::span<const PackExtent> active,
                     std::span<const PackExtent> later) {
  std::uint32_t end = frame + 1;
  for (const PackExtent& extent : active) end = std::max(end, extent.last_frame() + 1);
  for (const PackExtent& extent : later) {
    if (extent.slot.frame() > end) break;
    end = std::max(end, extent.last_frame() + 1);
  }
  fetched_end_ = std::min({end, frame + fetch_frames, reader_.data_frames()});
  if (frame >= fetched_end_) refuse_slot();
  reader_.fetch(frame, fetched_end_ - frame);
}

void PackWalk::refuse_slot() const {
  base::fail(base::Code::corrupt, "pack {} does not hold a page that a map says it holds",
             to_string(id_));
}

}  // namespace holdfast::repository
