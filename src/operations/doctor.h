#pragma once

// `doctor`: what is wrong with an installation, and how to mend it.

#include <string>
#include <vector>

#include "operations/findings.h"

namespace holdfast::operations {

struct Diagnosis {
  Findings findings;
  std::vector<std::string> fixed;  ///< what --fix changed
  bool restart_needed = false;     ///< the server must be restarted for it
};

/// Looks at everything that backup, archiving and restore need. With `fix`, sets PostgreSQL's
/// settings (ALTER SYSTEM) as they should be; what takes effect without a restart is reloaded.
Diagnosis diagnose(const Configuration& configuration, const std::string& cluster, bool fix);

/// The archive_command for a configuration: absolute paths, quoted for the shell.
std::string archive_command(const Configuration& configuration, const std::string& cluster);

}  // namespace holdfast::operations
