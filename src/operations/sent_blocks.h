#pragma once

// Which blocks a server sent of the files that it sent in part, held against what must be there.
//
// The server decides from its own summaries of WAL, and it may be wrong: it merges them in the
// order of a directory, and so a file's end that was cut off early takes blocks with it that were
// written later (17 and 18). What is missing would become zeros, or old pages, without a sign. So
// each block that was named since the previous backup, and not cut off behind that, must have come.

#include <optional>
#include <string>
#include <vector>

#include "operations/changed_blocks.h"
#include "postgres/incremental_file.h"

namespace holdfast::operations {

/// The first page of a file that came in part which should have come and did not; nullopt: none is
/// missing. A file of which everything may have changed must not come in part at all.
std::optional<std::uint32_t> missing_page(const ChangedBlocks& changes,
                                          const RelationSegment& segment,
                                          const postgres::IncrementalHeader& sent);

/// Remembers what came, to hold it against what is known only later. Takes about 32 bytes for each
/// file and 4 for each block.
class SentBlocks {
 public:
  void add(const RelationSegment& segment, const postgres::IncrementalHeader& sent);
  /// The first file and page that `changes` name and that did not come, for people; empty: none.
  std::string find_missing(const ChangedBlocks& changes) const;

 private:
  struct File {
    RelationSegment segment;
    std::uint32_t kept_length = 0;
    std::uint32_t blocks = 0;  ///< so many of blocks_, behind those of the file before
  };
  std::vector<File> files_;
  std::vector<std::uint32_t> blocks_;
};

}  // namespace holdfast::operations
