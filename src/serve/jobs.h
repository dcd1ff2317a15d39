#pragma once

// The work of a daemon, as the configuration has it: each job is a command of our own that a person
// could run as well, so that both go the same way (TRAPS DS2).

#include <optional>
#include <string>
#include <vector>

#include "operations/configuration.h"
#include "serve/schedule.h"

namespace holdfast::serve {

struct Job {
  std::string name;  ///< "backup.main": of files and objects, too
  std::string cluster;
  std::vector<std::string> arguments;  ///< of `holdfast`
  std::optional<Schedule> schedule;    ///< nullopt: it is to run all the time
  std::string follows;                 ///< the job after whose success it is due
  /// It is told when it was due ("--unless-since"), and does not do again what was done since: in
  /// one repository of two, or by a daemon that was killed before it could note it.
  bool knows_what_is_done = false;
};

/// Throws Error(configuration) for a schedule or a zone that cannot be understood.
std::vector<Job> jobs_of(const operations::Configuration& configuration);

}  // namespace holdfast::serve
