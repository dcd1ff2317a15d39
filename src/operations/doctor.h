#pragma once

// `doctor`: what is wrong with an installation, and how to mend it.

#include <string>
#include <vector>

#include "operations/catalog.h"

namespace holdfast::operations {

struct Finding {
  enum class Level { good, warning, bad };
  Level level = Level::good;
  std::string what;    ///< "archive_mode is off: no WAL is archived"
  std::string remedy;  ///< the way out; empty if nothing is to be done
};

struct Diagnosis {
  std::vector<Finding> findings;
  std::vector<std::string> fixed;  ///< what --fix changed
  bool restart_needed = false;     ///< the server must be restarted for it
  bool ok() const;
};

/// Looks at everything that backup, archiving and restore need. With `fix`, sets PostgreSQL's
/// settings (ALTER SYSTEM) as they should be; what takes effect without a restart is reloaded.
Diagnosis diagnose(const Configuration& configuration, const std::string& cluster, bool fix);

/// The archive_command for a configuration: absolute paths, quoted for the shell.
std::string archive_command(const Configuration& configuration, const std::string& cluster);

}  // namespace holdfast::operations
