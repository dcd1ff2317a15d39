#pragma once

// Environment files as Docker Compose reads them (compose-go's dotenv).
//
// What is read is what Compose would give a container, or an Error(configuration) that names file
// and line, never a value. A value that is put together from other variables is refused: what it is
// depends on where it is read.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::operations {

using EnvironmentVariables = std::vector<std::pair<std::string, std::string>>;

/// In the order of the file; of several with one name the last one counts. `where` is for messages.
EnvironmentVariables parse_environment(std::string_view text, std::string_view where);

/// A text that Compose reads back as exactly these: literal quotes, or escapes where those cannot.
std::string write_environment(const EnvironmentVariables& variables);

bool is_variable_name(std::string_view name);

}  // namespace holdfast::operations
