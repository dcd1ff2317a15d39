#pragma once

// What long work tells while it runs. The work writes here; who started it decides what a person
// sees (cli shows a bar on a terminal, `--json` shows nothing).

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace holdfast::base {

/// One piece of work: what it is doing and how far it is. Threads may share it.
class Progress {
 public:
  /// A new phase of `total` bytes (0: unknown).
  void begin(std::string phase, std::uint64_t total);
  /// The total, once more is known of it.
  void set_total(std::uint64_t total) { total_.store(total, std::memory_order_relaxed); }
  void add(std::uint64_t bytes) { done_.fetch_add(bytes, std::memory_order_relaxed); }
  /// Something that the user must see even though the work goes on.
  void warn(std::string message);
  template <typename... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) {
    warn(fmt::format(format, std::forward<Args>(args)...));
  }

  struct Snapshot {
    std::string phase;
    std::uint64_t done;
    std::uint64_t total;
  };
  Snapshot snapshot() const;
  /// The warnings since the last call.
  std::vector<std::string> take_warnings();

 private:
  mutable std::mutex mutex_;
  std::string phase_;
  std::atomic<std::uint64_t> done_{0};
  std::atomic<std::uint64_t> total_{0};
  std::vector<std::string> warnings_;
};

/// "1.5 GiB": for people.
std::string size_text(std::uint64_t bytes);

}  // namespace holdfast::base
