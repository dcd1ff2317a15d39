#pragma once

// Whose is what root makes in somebody's directory? His: he must be able to go on with it.

#include "base/file.h"

namespace holdfast::base {

/// As root, gives a file or directory to the owner and group of the directory that it is in; as
/// anybody else does nothing. A link is not followed, and what has another name is left alone.
void give_to_owner_of_directory(const fs::path& made);

/// Makes what is missing of a path, and gives each to the owner of the one above.
void make_directories_for_owner(const fs::path& directory, mode_t mode = 0777);

}  // namespace holdfast::base
