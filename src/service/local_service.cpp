#include "service/local_service.h"

#include <fmt/format.h>
#include <signal.h>

#include <thread>

#include "base/http.h"
#include "base/time.h"
#include "base/workers.h"

namespace holdfast::service {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Starts the command "$1", and a guard before it: when the shell that the command begins as ends,
/// however that is, the guard sees within a second that it has another parent, and kills what is
/// left of the group. The kernel kills that shell when we are killed.
constexpr const char* guarded =
    "setsid /bin/sh -c 'while read -r a b c parent d </proc/$$/stat && [ \"$parent\" = \"$0\" ]; "
    "do sleep 1; done; kill -s KILL -- -\"$0\"' $$ </dev/null >/dev/null 2>&1 & "
    "exec /bin/sh -c \"$1\"";

base::Command shell(const LocalServiceOptions& options) {
  base::Command command;
  command.argv = {"/bin/sh", "-c", guarded, "holdfast-service", options.command};
  command.directory = options.directory;
  command.environment = options.environment;
  command.environment.emplace_back("HOLDFAST_PASSPHRASE", "");  // our key is not its business
  command.user = options.user;
  command.own_group = true;
  command.signal_when_orphaned = SIGKILL;
  return command;
}

}  // namespace

LocalService::LocalService(const LocalServiceOptions& options)
    : child_(shell(options), options.log) {}

LocalService::~LocalService() {
  child_.signal_group(SIGTERM);
  try {
    child_.wait_for(std::chrono::seconds(3));
  } catch (const std::exception&) {
    // What does not end is killed.
  }
  child_.signal_group(SIGKILL);
}

std::string LocalService::wait_until_it_answers(const std::string& url, std::optional<long> status,
                                                std::chrono::microseconds limit) {
  const auto begun = steady_clock::now();
  for (;;) {
    base::stop_if_interrupted();
    const base::HttpAnswer answer = base::http_get(url, std::chrono::seconds(5));
    // Who answers must be the one that we started.
    if (const auto ended = finished()) {
      return fmt::format("its command ended with status {}", *ended);
    }
    if (answer.status && (!status || answer.status == status)) return {};
    if (steady_clock::now() - begun > limit) {
      return fmt::format(
          "{} did not answer{} within {}: {}", url, status ? fmt::format(" {}", *status) : "",
          base::to_string_short(limit),
          answer.status ? fmt::format("the last answer was {}", *answer.status) : answer.why_not);
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
}

}  // namespace holdfast::service
