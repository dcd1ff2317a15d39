#pragma once

// What operators read: one line an event, on stderr. Never a token, never a body.

#include <fmt/format.h>

#include <string_view>

namespace reference {

/// Writes one line with the time; line breaks and other control characters become spaces.
void log_line(std::string_view text);

template <typename... Arguments>
void log(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_line(fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace reference
