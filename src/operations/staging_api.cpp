#include "operations/staging_api.h"

#include <signal.h>

#include <thread>

#include "base/error.h"
#include "base/http.h"
#include "base/process.h"
#include "base/workers.h"

namespace holdfast::operations {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Ends all that the command started.
class Group {
 public:
  explicit Group(base::Child& child) : child_(child) {}
  ~Group() {
    child_.signal_group(SIGTERM);
    try {
      child_.wait_for(std::chrono::seconds(3));
    } catch (const std::exception&) {
      // What does not end is killed.
    }
    child_.signal_group(SIGKILL);
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

 private:
  base::Child& child_;
};

}  // namespace

Checked check_staging_api(const Configuration& configuration, const std::string& database_url,
                          const base::fs::path& log) {
  const DrillConfiguration& drill = configuration.drill;
  Checked result{{"staging API is ready", CheckOutcome::failed, {}}, {}};
  base::Command command;
  command.argv = {"/bin/sh", "-c", drill.api};
  command.directory = configuration.path.parent_path();
  // Our key is not its business.
  command.environment = {{"DATABASE_URL", database_url}, {"HOLDFAST_PASSPHRASE", ""}};
  command.user = base::running_as_root() ? postgres::server_user() : std::nullopt;
  command.own_group = true;
  command.signal_when_orphaned = SIGKILL;
  const auto begun = steady_clock::now();
  base::Child child(command, log);
  const Group group(child);
  base::HttpAnswer answer;
  for (;;) {
    base::stop_if_interrupted();
    answer = base::http_get(drill.ready, std::chrono::seconds(5));
    const auto took = steady_clock::now() - begun;
    // Who answers must be the one that we started.
    if (const auto status = child.finished()) {
      result.check.found = fmt::format("its command ended with status {}", *status);
      break;
    }
    if (answer.status == 200) {
      result.check.outcome = CheckOutcome::passed;
      result.check.found =
          fmt::format("{} answered 200 after {}", drill.ready,
                      base::to_string_short(std::chrono::duration_cast<base::Microseconds>(took)));
      return result;
    }
    if (took > drill.ready_within) {
      result.check.found = fmt::format(
          "{} did not answer 200 within {}: {}", drill.ready,
          base::to_string_short(drill.ready_within),
          answer.status ? fmt::format("the last answer was {}", *answer.status) : answer.why_not);
      break;
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
  result.details.push_back(result.check.found);
  result.details.push_back("what it said is in " + log.string());
  return result;
}

}  // namespace holdfast::operations
