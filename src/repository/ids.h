#pragma once

// The names of things in a repository. Each is its own type, so that none is taken for another.

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/time.h"

namespace holdfast::repository {

/// 16 bytes: 6 of the time it was made (milliseconds since 1970, big-endian, so that names sort by
/// age), 10 at random. Never used twice, also not for a retry: keys are derived from it.
struct ObjectId {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const ObjectId&) const = default;
};
ObjectId new_object_id();
std::string to_string(const ObjectId& id);
/// Throws Error(corrupt) unless `text` is what to_string writes.
ObjectId parse_object_id(std::string_view text);

struct PackId : ObjectId {
  auto operator<=>(const PackId&) const = default;
};
struct ShardId : ObjectId {
  auto operator<=>(const ShardId&) const = default;
};

/// "20261123T083000Z-4f2a": when it was begun, and 16 random bits. For people; nothing is decided
/// by comparing these (pitfall B40).
struct BackupId {
  std::string text;
  auto operator<=>(const BackupId&) const = default;
};
BackupId new_backup_id(base::Timestamp begun);
bool is_backup_id(std::string_view text);

}  // namespace holdfast::repository
