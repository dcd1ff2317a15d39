#pragma once

// The thread that imports in the background. Jobs wait in the database, not here, so a restart
// forgets none; wake() only spares a new one the wait for the next look.

#include <condition_variable>
#include <mutex>
#include <thread>

#include "imports/importer.h"

namespace reference::imports {

class Worker {
 public:
  explicit Worker(Importer importer);
  /// Ends after the batch that is being done.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void wake();

 private:
  void run();
  /// False if there is nothing to do at the moment, or it cannot be done.
  bool work();

  Importer importer_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point next_sweep_;
  std::thread thread_;
};

}  // namespace reference::imports
