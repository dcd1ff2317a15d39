#include "operations/recovery_context.h"

#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "service/database_url.h"
#include "service/environment_file.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

/// The last lines, on one.
std::string end_of(const std::string& output) {
  constexpr std::size_t length = 400;
  std::string text = output.substr(output.size() > length ? output.size() - length : 0);
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

}  // namespace

std::vector<std::string> secrets_of_service(const RecoverSettings& settings) {
  std::vector<std::string> secrets;
  if (settings.environment_file.empty()) return secrets;
  const auto bytes = base::read_file(settings.environment_file);
  if (!bytes) return secrets;
  // Short ones ("on", "5432") are no secrets, and would cross out half of what is said.
  constexpr std::size_t shortest = 8;
  for (const auto& each : service::parse_environment(base::text(*bytes))) {
    if (!each.value) continue;
    if (each.value->size() >= shortest) secrets.push_back(*each.value);
    if (each.name != settings.variable) continue;
    try {
      for (std::string& password : service::database_passwords(*each.value)) {
        secrets.push_back(std::move(password));
      }
    } catch (const Error&) {
      // No URL: it is crossed out as a whole.
    }
  }
  return secrets;
}

void run_user_command(const RecoveryContext& context, std::string_view step,
                      const std::string& line, base::Microseconds limit) {
  const Configuration& configuration = context.configuration();
  const Recovery& recovery = context.recovery();
  base::Command command = service::shell_command(line, configuration.path.parent_path());
  command.environment = {{"HOLDFAST_RECOVERY", recovery.id},
                         {"HOLDFAST_STEP", std::string(step)},
                         {"HOLDFAST_CONFIG", configuration.path.string()},
                         {"HOLDFAST_CLUSTER", recovery.cluster},
                         {"HOLDFAST_DIRECTORY", recovery.directory.string()},
                         {"HOLDFAST_OLD_DIRECTORY", recovery.old_directory.string()},
                         {"HOLDFAST_BACKUP", recovery.backup},
                         {"HOLDFAST_TARGET", recovery.request.to},
                         {"HOLDFAST_TIMELINE", std::to_string(recovery.timeline)},
                         {"HOLDFAST_LSN", recovery.lsn}};
  const auto secrets = secrets_of_service(context.settings());
  const service::Deployment done = service::deploy(command, limit, secrets);
  if (done.ok()) return;
  const std::string said = done.output.empty() ? "it said nothing" : end_of(done.output);
  if (done.timed_out) {
    base::fail(Code::check_failed, "its command did not end within {}: {}",
               base::to_string_short(limit), said);
  }
  base::fail(Code::check_failed, "its command ended with {}: {}", done.status, said);
}

bool await_step(base::Microseconds limit, const std::function<bool()>& reached) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!reached()) {
    base::stop_if_interrupted();
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

}  // namespace holdfast::operations
