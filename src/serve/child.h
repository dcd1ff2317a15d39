#pragma once

// A command of our own as a child of the daemon: it is never waited for without a limit, and it
// ends when the daemon does, however that ends.

#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "base/process.h"
#include "base/time.h"

namespace holdfast::serve {

struct ChildEnd {
  enum class How { by_itself, too_late, stopped };
  How how = How::by_itself;
  int status = 0;
  std::string last_words;  ///< the error that it printed
};

/// Runs `arguments` of `program`, what it says in `log`, which stays below 1 MiB. A child that runs
/// longer than `limit`, or when `stop` is asked for, gets SIGTERM, and after `grace` SIGKILL.
/// `tick` is called now and then; when it returns false the child is stopped too. `when_late` is
/// called before that is done: a child that waits for a dead file system does not end for a signal.
ChildEnd run_child(const base::Command& command, const base::fs::path& log,
                   std::optional<base::Microseconds> limit, const std::stop_token& stop,
                   const std::function<bool()>& tick, const std::function<void()>& when_late,
                   std::chrono::seconds grace = std::chrono::seconds(30));

}  // namespace holdfast::serve
