#pragma once

// A service that is started here, by a command of the user's: for a drill, a game day, a recovery.
//
// The command runs in a shell, as a process group of its own, which is ended with all in it when
// the object goes, and killed with all in it when we are. Secrets reach it by its environment,
// never by its arguments.

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"

namespace holdfast::service {

struct LocalServiceOptions {
  std::string command;
  base::fs::path directory;
  std::vector<std::pair<std::string, std::string>> environment;
  std::optional<base::User> user;  ///< whom to become; only root can
  base::fs::path log;              ///< what it says is appended
};

class LocalService {
 public:
  explicit LocalService(const LocalServiceOptions& options);
  /// SIGTERM, three seconds, SIGKILL.
  ~LocalService();
  LocalService(const LocalService&) = delete;
  LocalService& operator=(const LocalService&) = delete;

  /// The exit status once the command has ended.
  std::optional<int> finished() { return child_.finished(); }
  /// Asks until the URL answers with `status` (or with any, if nullopt). Returns why it did not
  /// within the limit, or because the command ended; empty if it did.
  std::string wait_until_it_answers(const std::string& url, std::optional<long> status,
                                    std::chrono::microseconds limit);

 private:
  base::Child child_;
};

}  // namespace holdfast::service
