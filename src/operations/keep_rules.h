#pragma once

// What [keep] in holdfast.toml says: which backups `expire` keeps.

#include <cstdint>
#include <optional>

#include "base/time.h"

namespace holdfast::operations {

/// A backup is kept if any of these keeps it. Days, weeks (from Monday), months and years are UTC.
struct KeepRules {
  std::optional<base::Microseconds> age;  ///< backups = "7d": those not older than this
  std::optional<std::uint32_t> count;     ///< backups = 7: the newest so many
  std::uint32_t daily = 0;                ///< the newest of each of the last days that have one
  std::uint32_t weekly = 0;
  std::uint32_t monthly = 0;
  std::uint32_t yearly = 0;
  /// Every moment since then can be restored.
  std::optional<base::Microseconds> window;
  /// How long `snapshot` pins what it took.
  base::Microseconds snapshots = std::chrono::hours(30 * 24);

  /// Without any rule nothing is ever expired.
  bool expire_anything() const {
    return age || count || daily > 0 || weekly > 0 || monthly > 0 || yearly > 0 || window;
  }
};

}  // namespace holdfast::operations
