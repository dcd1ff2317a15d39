#include "base/report.h"

#include <array>
#include <utility>

namespace holdfast::base {

void Progress::begin(std::string phase, std::uint64_t total) {
  const std::lock_guard lock(mutex_);
  phase_ = std::move(phase);
  done_ = 0;
  total_ = total;
}

void Progress::warn(std::string message) {
  const std::lock_guard lock(mutex_);
  warnings_.push_back(std::move(message));
}

Progress::Snapshot Progress::snapshot() const {
  const std::lock_guard lock(mutex_);
  return {phase_, done_, total_};
}

std::vector<std::string> Progress::take_warnings() {
  const std::lock_guard lock(mutex_);
  return std::exchange(warnings_, {});
}

std::string size_text(std::uint64_t bytes) {
  static constexpr std::array units{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace holdfast::base
