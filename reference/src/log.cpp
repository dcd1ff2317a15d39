#include "log.h"

#include <unistd.h>

#include <chrono>
#include <ctime>
#include <string>

namespace reference {

void log_line(std::string_view text) {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::string line(32, '\0');
  line.resize(std::strftime(line.data(), line.size(), "%Y-%m-%dT%H:%M:%SZ ", &parts));
  for (const char each : text.substr(0, 1000)) {
    line += static_cast<unsigned char>(each) < 0x20 || each == 0x7f ? ' ' : each;
  }
  line += '\n';
  // One write, so that lines of several threads do not mix; nobody can be told of a failure.
  [[maybe_unused]] const ssize_t ignored = ::write(2, line.data(), line.size());
}

}  // namespace reference
