#pragma once

// How to start a server on a restored directory, as a line for a shell that works: with the whole
// path of pg_ctl, as the user whose directory it is, and beside a server that has the port.

#include <string>

#include "base/file.h"

namespace holdfast::operations {

std::string start_command(const base::fs::path& directory);

}  // namespace holdfast::operations
