#include "serve/child.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"

namespace holdfast::serve {

namespace {

using base::fs::path;

constexpr std::uintmax_t longest_log = 1 << 20;

/// A full disk must not keep a job from being begun, nor from ending well: a command whose output
/// could not be written fails.
path usable_log(const path& log) {
  try {
    base::make_directories(log.parent_path());
    const base::Fd file = base::open_file(log, O_WRONLY | O_CREAT | O_TRUNC);
    base::write_all(file, base::Bytes(64 << 10), log);
    base::fs::resize_file(log, 0);
    return log;
  } catch (const std::exception&) {
    std::error_code ignored;
    base::fs::resize_file(log, 0, ignored);
    return "/dev/null";
  }
}

void keep_small(const path& log) {
  std::error_code failed;
  const std::uintmax_t size = base::fs::file_size(log, failed);
  // Who writes appends, and goes on at the new end.
  if (!failed && size > longest_log) base::fs::resize_file(log, 0, failed);
}

/// The last line that is an error, without the name of the program; or the last line.
std::string last_words(const path& log) {
  std::string found;
  try {
    const auto bytes = base::read_file(log);
    std::string_view text = bytes ? base::text(*bytes) : std::string_view();
    bool is_error = false;
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.starts_with("holdfast: ")) {
        found = line.substr(10);
        is_error = true;
      } else if (!is_error && !line.empty()) {
        found = line;
      }
    }
  } catch (const std::exception&) {
    // The status says enough.
  }
  return found.substr(0, 500);
}

int end_child(base::Child& child, std::chrono::seconds grace) {
  child.signal_group(SIGTERM);
  const auto status = child.wait_for(grace);
  child.signal_group(SIGKILL);
  return status ? *status : child.wait();
}

}  // namespace

ChildEnd run_child(const base::Command& command, const path& wanted_log,
                   std::optional<base::Microseconds> limit, const std::stop_token& stop,
                   const std::function<bool()>& tick, const std::function<void()>& when_late,
                   std::chrono::seconds grace) {
  const path log = usable_log(wanted_log);
  base::Command own = command;
  own.own_group = true;
  own.signal_when_orphaned = SIGTERM;
  base::Child child(own, log);
  const auto begun = std::chrono::steady_clock::now();
  ChildEnd end;
  for (;;) {
    if (const auto status = child.wait_for(std::chrono::milliseconds(200))) {
      end.status = *status;
      break;
    }
    keep_small(log);
    const bool late = limit && std::chrono::steady_clock::now() - begun > *limit;
    if (!late && !stop.stop_requested() && tick()) continue;
    if (late) when_late();
    end.how = late ? ChildEnd::How::too_late : ChildEnd::How::stopped;
    end.status = end_child(child, grace);
    break;
  }
  end.last_words = last_words(log);
  return end;
}

}  // namespace holdfast::serve
