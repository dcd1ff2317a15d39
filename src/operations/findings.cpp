#include "operations/findings.h"

#include <algorithm>

namespace holdfast::operations {

void Findings::note_windows(const std::vector<RecoveryWindow>& windows) {
  for (const RecoveryWindow& window : windows) {
    const bool is_last = &window == &windows.back();
    const Level level = !window.ends_in_hole ? Level::good : is_last ? Level::bad : Level::warning;
    note(level, "recovery window " + to_string(window),
         level == Level::bad ? "take a new backup" : "", "gap");
  }
}

bool Findings::ok() const {
  return std::ranges::none_of(all_, [](const Finding& each) { return each.level == Level::bad; });
}

}  // namespace holdfast::operations
