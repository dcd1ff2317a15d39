#pragma once

// The checksums of the pages of a data directory that a server may be running on.

#include <chrono>
#include <optional>

#include "base/report.h"
#include "operations/catalog.h"

namespace holdfast::operations {

struct ChecksumReport {
  std::uint64_t pages = 0;     ///< that were read
  std::uint64_t of_pages = 0;  ///< that there are
  std::vector<DamagedFile> damaged;
};

/// Reads all pages of relation files, or random pieces of them until `limit` is over. Something is
/// read in any case.
ChecksumReport check_data_checksums(const base::fs::path& data_directory, const BackupInfo& backup,
                                    std::optional<std::chrono::milliseconds> limit,
                                    unsigned workers, base::Progress& progress);

}  // namespace holdfast::operations
