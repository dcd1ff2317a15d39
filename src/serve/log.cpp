#include "serve/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/time.h"

namespace holdfast::serve {

std::string one_line(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

void say(std::string_view message) {
  const auto now = std::chrono::floor<std::chrono::seconds>(base::now());
  const std::string line =
      fmt::format("{}  {}\n", base::to_string(now), one_line(std::string(message)));
  // A single write: lines of several threads do not mix. If nobody reads it, nobody is told.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace holdfast::serve
