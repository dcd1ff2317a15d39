#pragma once

// [schedule], [alert] and [serve] of holdfast.toml: what the daemon is to do. The expressions of
// [schedule] are understood further up (serve/schedule.h).

#include <chrono>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/section.h"
#include "base/time.h"

namespace holdfast::operations {

/// [schedule]: an expression for each kind of work; empty: the daemon does not do it.
struct ScheduleSettings {
  std::string backup;
  std::string drill;
  std::string expire;
  std::string verify;
  std::string timezone;                               ///< empty: the system's
  base::Microseconds jitter{};                        ///< hosts begin up to so much later
  base::Microseconds limit = std::chrono::hours(12);  ///< a run that takes longer is ended
};

/// [alert]: who is told when something begins to be wrong, and when it ends.
struct AlertSettings {
  std::string webhook;              ///< a URL
  std::string command;              ///< for a shell
  std::vector<std::string> emails;  ///< addresses
  base::fs::path sendmail = "/usr/sbin/sendmail";
};

/// [serve]: the daemon itself.
struct ServeSettings {
  base::fs::path state;                                       ///< a file of its own
  std::string listen;                                         ///< "127.0.0.1:9187"; empty: nowhere
  bool wal_receive = false;                                   ///< it keeps `wal receive` running
  base::Microseconds check_every = std::chrono::seconds(60);  ///< how often it asks `status`
};

/// nullptr: there is no such section.
ScheduleSettings read_schedule(const base::TomlFile& file, const toml::table* table);
AlertSettings read_alert(const base::TomlFile& file, const toml::table* table);
/// Without a path the state is beside the evidence of drills.
ServeSettings read_serve(const base::TomlFile& file, const toml::table* table,
                         const base::fs::path& evidence);

}  // namespace holdfast::operations
