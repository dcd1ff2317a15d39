#pragma once

// What the daemon says: one line on stderr for each thing that happens, with the time in UTC.

#include <string>
#include <string_view>

namespace holdfast::serve {

/// Control characters become spaces: nobody's message can look like a line of ours.
std::string one_line(std::string text);
/// Never throws. Several threads may speak at once.
void say(std::string_view message);

}  // namespace holdfast::serve
