#pragma once

// A backup that is needed because of a gap in WAL: tried, in a thread of its own, until it
// succeeds.

#include <functional>
#include <thread>

#include "operations/backup.h"

namespace holdfast::operations {

class OwedBackup {
 public:
  /// `pause` is between two tries; `say` is called by the thread, with each new reason of a failure
  /// once.
  OwedBackup(const Site& site, BackupRequest request, std::chrono::milliseconds pause,
             std::function<void(const std::string&)> say);

  /// Begins to try, unless it is at it.
  void want();
  /// One is wanted, and was not taken yet.
  bool owed() const { return owed_; }
  /// Gives up between two tries (a signal also ends one that is running).
  void stop();

 private:
  void run(const std::stop_token& stop);
  bool take(std::string& said);

  const Site& site_;
  BackupRequest request_;
  std::chrono::milliseconds pause_;
  std::function<void(const std::string&)> say_;
  std::atomic<bool> owed_{false};
  std::jthread thread_;
};

}  // namespace holdfast::operations
