#pragma once

// Telling systemd how we are: datagrams to $NOTIFY_SOCKET (sd_notify(3)). Without that variable
// nothing is told.

#include <chrono>
#include <optional>
#include <string>

namespace holdfast::serve {

class ServiceManager {
 public:
  /// Reads NOTIFY_SOCKET and WATCHDOG_USEC, and takes them out of the environment: children are not
  /// to speak for us.
  ServiceManager();
  /// "READY=1". Never waits, never fails.
  void tell(const std::string& state) const;
  /// How often it wants "WATCHDOG=1"; nullopt: never.
  std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

 private:
  std::string socket_;
  std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace holdfast::serve
