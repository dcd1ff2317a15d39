#pragma once

// Tripwires: what every file of a place was before a command, and is after it.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace holdfast::tests::worlds {

namespace fs = std::filesystem;

/// Each path below some directories with its type, mode, owner, size, hash, and target of a link;
/// each path that is not there with "absent". Nothing is opened but regular files.
using Picture = std::map<std::string, std::string>;

/// `leave_out` says which paths do not matter, with all below them: they are not even looked at.
Picture picture_of(const std::vector<fs::path>& places,
                   const std::function<bool(const fs::path&)>& leave_out);

/// A line for each path that differs, at most twenty; "" if there is none.
std::string differences(const Picture& before, const Picture& after,
                        const std::function<bool(const fs::path&)>& leave_out);

/// Is `path` this one, or below it?
bool is_below(const fs::path& path, const fs::path& directory);

}  // namespace holdfast::tests::worlds
