#pragma once

// The schema, in versions: files NNNN_name.sql, applied in order and each exactly once.
//
// Each is a transaction together with its row in schema_migrations, which records its checksum: a
// file that was changed after it had been applied is refused. Two that migrate at once take turns
// (an advisory lock). Throws std::runtime_error.

#include <filesystem>
#include <string>
#include <vector>

namespace reference::database {

/// Returns the names of what was applied now.
std::vector<std::string> migrate(const std::string& url, const std::filesystem::path& directory);

}  // namespace reference::database
