#pragma once

// What the steps of a recovery share.

#include <functional>
#include <string>

#include "base/report.h"
#include "operations/recovery_journal.h"
#include "operations/repositories.h"

namespace holdfast::operations {

struct RecoveryContext {
  const std::vector<Configuration>& repositories;
  RecoveryJournal& journal;
  base::Progress& progress;
  unsigned workers = 1;
  /// Why what a step waits for is not so yet: said if its time is over.
  mutable std::string waits_for = {};

  /// Where clusters and the service are described: alike for all repositories.
  const Configuration& configuration() const { return repositories.front(); }
  const RecoverSettings& settings() const { return configuration().recover; }
  const ClusterConfiguration& cluster() const {
    return configuration().cluster(recovery().cluster);
  }
  Recovery& recovery() const { return journal.recovery(); }
};

/// How a step ended, if it did not fail.
struct StepResult {
  bool skipped = false;  ///< there was nothing to do, or nothing is known of it
  std::string found;     ///< in one line, without secrets
};
inline StepResult skipped(std::string why) {
  return {true, std::move(why)};
}

/// A line of the user's for the shell, in the configuration's directory, told by its environment
/// what is known (docs/recover.md). Throws Error(check_failed) with the end of what it said.
void run_user_command(const RecoveryContext& context, std::string_view step,
                      const std::string& line, base::Microseconds limit);

/// Asks `reached` again and again; false if it was not so within the limit.
bool await_step(base::Microseconds limit, const std::function<bool()>& reached);

/// Values of the service's environment file: nothing that a command says may show them.
std::vector<std::string> secrets_of_service(const RecoverSettings& settings);

}  // namespace holdfast::operations
