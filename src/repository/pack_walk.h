#pragma once

// Going through packs for pages of many files: each frame that is needed is read, checked and
// decompressed once, whatever the number of files that have pages in it.

#include <functional>
#include <span>

#include "repository/pack.h"

namespace holdfast::repository {

/// Frames that stand together are read with one request, up to so many.
constexpr std::uint32_t fetch_frames = 16;

/// Pages of one pack that belong together into one file.
struct PackExtent {
  Slot slot;
  std::uint32_t pages = 0;
  std::uint32_t file = 0;  ///< the caller's own number of the file
  std::uint64_t first_page = 0;
  std::uint32_t last_frame() const { return Slot{slot.value + pages - 1}.frame(); }
};

/// Walks one pack. Belongs to one thread.
class PackWalk {
 public:
  /// `buffer` gets one frame after the other: frame_bytes at least.
  PackWalk(PackReader& reader, const PackId& id, base::Decompressor& decompressor,
           base::MutableView buffer)
      : reader_(reader), id_(id), decompressor_(decompressor), buffer_(buffer) {}

  /// How many of `extents`, which are in slot order, are near enough to the first one to be visited
  /// together: small memory, few requests.
  static std::size_t near(std::span<const PackExtent> extents);

  /// Gets a part of an extent that lies in one frame, and that frame's bytes of it, whole pages.
  using Sink = std::function<void(const PackExtent& part, base::View pages)>;
  /// Visits the pages of `extents`, which are in slot order, frame by frame; extents of files with
  /// equal content may overlap. Throws Error(corrupt) where the pack does not hold them.
  void visit(std::span<const PackExtent> extents, const Sink& sink);

  [[noreturn]] void refuse_slot() const;

 private:
  void fetch(std::uint32_t frame, std::span<const PackExtent> active,
             std::span<const PackExtent> later);

  PackReader& reader_;
  PackId id_;
  base::Decompressor& decompressor_;
  base::MutableView buffer_;
  std::uint32_t fetched_end_ = 0;  ///< the frame behind those that were fetched
};

}  // namespace holdfast::repository
