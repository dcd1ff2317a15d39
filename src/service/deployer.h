#pragma once

// Makes the user's service anew so that it has the environment that was written for it.
//
// Docker compose has to create its container again: `restart` keeps the environment that the old
// one was made with. systemd reads EnvironmentFile= at each start, so a restart does. All else is a
// command of the user's.

#include <string>
#include <vector>

#include "base/process.h"
#include "base/time.h"

namespace holdfast::service {

struct ComposeService {
  std::vector<base::fs::path> files;              ///< -f
  std::vector<base::fs::path> environment_files;  ///< --env-file: for the compose file itself
  std::string project;                            ///< empty: as compose names it
  std::string service;
};

/// `docker compose ... up`, of this service alone; waits until its health check says that it is
/// well. As compose takes whole seconds, `limit` is rounded up for it.
base::Command compose_command(const ComposeService& service, base::Microseconds limit);
/// `systemctl restart UNIT`.
base::Command systemd_command(const std::string& unit);
/// A line for the shell, in a directory.
base::Command shell_command(const std::string& line, const base::fs::path& directory);

struct Deployment {
  int status = 0;  ///< exit status, or 128 + the signal that ended it
  bool timed_out = false;
  base::Microseconds took{};
  std::string output;  ///< the end of both outputs, with secrets crossed out

  bool ok() const { return status == 0 && !timed_out; }
};

/// Runs it as a process group of its own, which is ended with all in it when the time is over, or
/// when a signal asks this process to stop (then Error(interrupted) is thrown). Throws Error if the
/// program cannot be started. `secrets` are crossed out in what it says, as is the password in any
/// URL.
Deployment deploy(base::Command command, base::Microseconds limit,
                  const std::vector<std::string>& secrets);

/// `text` without these secrets, and without passwords in URLs.
std::string without_secrets(std::string text, const std::vector<std::string>& secrets);

}  // namespace holdfast::service
