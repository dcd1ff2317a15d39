#pragma once

// The user's own service, started on a restored database: it must say that it is ready.
//
// The command runs in a shell, in the directory of the configuration, with the database's URL in
// DATABASE_URL (never in its arguments), as a process group of its own, which is killed with all in
// it at the end. As root it runs as the user that servers run as.

#include <optional>

#include "operations/drill_checks.h"

namespace holdfast::operations {

/// Starts it, asks until it answers 200 or time is up, and ends it. `log` gets what it says.
Checked check_staging_api(const Configuration& configuration, const std::string& database_url,
                          const base::fs::path& log);

}  // namespace holdfast::operations
