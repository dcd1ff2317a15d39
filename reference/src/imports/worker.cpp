#include "imports/worker.h"

#include "http/problem.h"
#include "log.h"

namespace reference::imports {
namespace {

constexpr std::chrono::seconds between_looks{1};
constexpr std::chrono::minutes between_sweeps{10};

}  // namespace

Worker::Worker(Importer importer) : importer_(std::move(importer)) {
  thread_ = std::thread([this] { run(); });
}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Worker::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  wake_.notify_one();
}

bool Worker::work() {
  try {
    if (const auto now = std::chrono::steady_clock::now(); now >= next_sweep_) {
      importer_.sweep();
      next_sweep_ = now + between_sweeps;
    }
    return importer_.step();
  } catch (const http::Problem&) {
    // The database is away, and has been logged as such.
  } catch (const std::exception& error) {
    log("imports: {}", error.what());
  }
  return false;
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    woken_ = false;
    lock.unlock();
    const bool worked = work();
    lock.lock();
    if (!worked) wake_.wait_for(lock, between_looks, [this] { return woken_ || stopping_; });
  }
}

}  // namespace reference::imports
