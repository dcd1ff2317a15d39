#pragma once

// Small JSON documents that people can read and nobody can change unseen: the last member, "check",
// is a keyed digest of all bytes before it (docs/format.md, "backup.json"). What does not pass it
// byte for byte is not even parsed. Without encryption it only finds accidents.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "repository/repository.h"

namespace holdfast::repository {

/// The text to store. `purpose` says what kind of document it is; another kind does not pass.
std::string sign(const Repository& repository, std::string_view purpose, nlohmann::json document);

/// The document without its check; nullopt if it is not as it was written.
std::optional<nlohmann::json> read_signed(const Repository& repository, std::string_view purpose,
                                          std::string_view text);

/// Stores `document`, signed, as an object; false if there is one of that name already.
[[nodiscard]] bool put_signed(const Repository& repository, const std::string& object,
                              std::string_view purpose, const nlohmann::json& document);

/// The document that an object is; nullopt if there is none, or if it is not as it was written.
/// Nor is it one if it does not say all of `identity`, members that tell whose it is and which: who
/// can write to the store can put one that was signed for elsewhere in its place.
std::optional<nlohmann::json> get_signed(const Repository& repository, const std::string& object,
                                         std::string_view purpose, const nlohmann::json& identity);

}  // namespace holdfast::repository
