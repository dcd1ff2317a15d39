#pragma once

// Variables of the environment in texts that people write: so that secrets stay out of files.

#include <string>
#include <string_view>

namespace holdfast::base {

/// `text` with each ${NAME} and ${NAME:-otherwise} replaced. Throws Error(configuration) if a
/// variable is neither set nor optional.
std::string with_environment(std::string_view text);

}  // namespace holdfast::base
