#pragma once

// Reading pages of a file that a server may be writing to.

#include <functional>

#include "base/file.h"
#include "operations/catalog.h"
#include "postgres/data_directory.h"

namespace holdfast::operations {

/// One file being backed up, and what is known of it from its name.
struct SourceFile {
  base::fs::path path;            ///< for opening and for messages
  std::string name;               ///< relative
  bool check_pages = false;       ///< it is a relation file of a cluster with checksums
  std::uint32_t first_block = 0;  ///< number of its first page in the relation
};

/// Reads up to `into.size()` bytes at `offset` and checks each whole page. A page that fails is
/// read again: as long as its bytes change somebody is writing it, and replay will mend it; if they
/// stand still it is damaged, and is noted in `damage` (pitfall B15; page LSNs are not trusted for
/// this, TRAPS BK7). Returns how much there was.
std::size_t read_pages(const base::Fd& file, const SourceFile& source, std::uint64_t offset,
                       base::MutableView into, DamagedFile& damage);

}  // namespace holdfast::operations
