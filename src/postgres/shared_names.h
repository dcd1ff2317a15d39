#pragma once

// Names of databases and superusers, read from a cluster's files: for whoever must connect to a
// cluster of which he knows nothing.

#include <string>
#include <vector>

#include "base/file.h"

namespace holdfast::postgres {

struct SharedNames {
  std::vector<std::string> databases;
  std::vector<std::string> superusers;  ///< who may log in
};

/// Of a cluster that has just finished recovery, or is shut down: then all of it is on disk. Among
/// them may be some that are gone; what cannot be understood is left out.
SharedNames read_shared_names(const base::fs::path& data_directory);

}  // namespace holdfast::postgres
