#pragma once

// The WAL segment that is still being written, slice by slice.
//
// A slice is an object wal/TIMELINE/SEGMENT.d/LSN, LSN being the position of its first byte in 16
// hexadecimal digits: the bytes of the segment from there on. Slices that follow each other without
// a hole, from the segment's first byte, are as good as the segment itself up to where they end.
// When the complete segment is stored they have done their duty and are removed.
//
// A slice never changes its bytes (INV-2), and other bytes at its place are refused (INV-5). Only
// one that cannot be read, and so is worth nothing, gives way to a new one. Slices may overlap, as
// after a writer that died or was not answered; then they must agree.

#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

class WalSlices {
 public:
  WalSlices(const Repository& repository, ClusterPlace place);

  /// Makes `bytes`, which begin at `start` in `segment`, durable, and returns how many of them are:
  /// all, or fewer if there was a slice at this place already that holds only as many. Throws
  /// Error(conflict) if it holds other bytes.
  std::uint64_t put(const std::string& segment, std::uint64_t start, base::View bytes) const;

  /// The segments of a timeline ("00000001") that have slices, sorted.
  std::vector<std::string> segments(const std::string& timeline) const;

  /// What slices make of a segment.
  struct Reach {
    std::uint64_t end = 0;  ///< contiguous from the segment's start up to here
    bool hole = false;      ///< there are slices behind that, but something between is missing
  };
  /// By names and sizes alone; a slice whose size cannot be told counts as missing.
  Reach reach(const std::string& segment, std::uint64_t segment_start) const;

  struct Assembled {
    base::Bytes bytes;  ///< contiguous from the segment's start
    bool hole = false;
  };
  /// Reads them; throws Error(corrupt) if one of them cannot be read, or if they do not agree.
  Assembled assemble(const std::string& segment, std::uint64_t segment_start) const;
  /// Where the first slice begins; nullopt if the segment has none.
  std::optional<std::uint64_t> first(const std::string& segment) const;

  /// Those that are there now are durable on return, whoever wrote them.
  void settle(const std::string& segment) const;
  /// Removes the slices of a segment, which is durable as a whole or not needed any more.
  void remove(const std::string& segment) const;

 private:
  std::string directory_name(const std::string& segment) const;
  std::string object_name(const std::string& segment, std::uint64_t start) const;
  std::vector<std::uint64_t> starts(const std::string& segment) const;
  std::optional<ContainerReader> open(const std::string& segment, std::uint64_t start) const;
  std::optional<base::Bytes> get(const std::string& segment, std::uint64_t start) const;

  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
