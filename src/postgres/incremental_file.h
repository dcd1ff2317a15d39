#pragma once

// A file that the server sends in part: only the blocks that changed since the backup whose
// manifest it was given (version 17; basebackup_incremental.c, pg_combinebackup/reconstruct.c).
//
// It has the name of the file that it stands for with "INCREMENTAL." in front, a header that tells
// which blocks follow, and these blocks. The header is believed in nothing that it can be checked
// for: it must be exactly as long as the file that it came in allows, and its blocks must rise.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace holdfast::postgres {

/// "base/5/INCREMENTAL.16384.1" stands for "base/5/16384.1"; nullopt for the name of any other
/// file.
std::optional<std::string> stands_for(std::string_view path);

/// What an incremental file says of the file that it stands for.
struct IncrementalHeader {
  /// Blocks below this that are not sent are as they were; from here on only those exist that are
  /// sent, and zeros between them.
  std::uint32_t kept_length = 0;
  std::vector<std::uint32_t> blocks;  ///< that follow, rising, counted from the file's begin

  /// Blocks that the file has.
  std::uint32_t length() const;
};

/// Takes the header off the front of an incremental file that arrives in pieces.
class IncrementalReader {
 public:
  /// `size` bytes will come of a file that has `segment_blocks` blocks at most.
  IncrementalReader(std::uint64_t size, std::uint32_t segment_blocks);

  /// What of `bytes` belongs to the blocks. Throws Error(corrupt) for what is no such file.
  base::View take(base::View bytes);
  /// Where all of it has been taken.
  bool has_header() const { return complete_; }
  const IncrementalHeader& header() const { return header_; }

 private:
  void read_fixed();
  void read_blocks();

  std::uint64_t size_;
  std::uint32_t segment_blocks_;
  base::Bytes bytes_;        ///< of the header, as far as it has come
  std::size_t header_size_;  ///< as far as that is known
  bool fixed_ = false;
  bool complete_ = false;
  IncrementalHeader header_;
};

}  // namespace holdfast::postgres
