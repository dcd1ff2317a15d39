#include "service/deployer.h"

#include <signal.h>

#include <algorithm>

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::service {

namespace {

/// So much of what it says is kept.
constexpr std::size_t kept_bytes = 64 << 10;
constexpr std::string_view crossed_out = "***";

/// "scheme://user:PASSWORD@": up to the last @ before the address ends.
void cross_out_passwords(std::string& text) {
  for (std::size_t at = text.find("://"); at != std::string::npos; at = text.find("://", at)) {
    at += 3;
    const std::size_t end = std::min(text.find_first_of("/ \t\r\n\"'", at), text.size());
    const std::size_t sign = text.rfind('@', end == 0 ? 0 : end - 1);
    if (sign == std::string::npos || sign < at) continue;
    const std::size_t colon = text.find(':', at);
    if (colon == std::string::npos || colon > sign) continue;
    text.replace(colon + 1, sign - colon - 1, crossed_out);
  }
}

void end_group(base::Child& child) {
  child.signal_group(SIGTERM);
  if (!child.wait_for(std::chrono::seconds(3))) child.signal_group(SIGKILL);
  child.wait();
  child.signal_group(SIGKILL);  // what it left behind
}

}  // namespace

base::Command compose_command(const ComposeService& service, base::Microseconds limit) {
  base::Command command;
  command.argv = {"docker", "compose"};
  const auto add = [&](std::initializer_list<std::string> words) {
    command.argv.insert(command.argv.end(), words);
  };
  if (!service.project.empty()) add({"--project-name", service.project});
  for (const auto& file : service.files) add({"-f", file.string()});
  for (const auto& file : service.environment_files) add({"--env-file", file.string()});
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(limit).count();
  add({"up", "-d", "--no-deps", "--force-recreate", "--wait", "--wait-timeout",
       std::to_string(seconds), service.service});
  return command;
}

base::Command systemd_command(const std::string& unit) {
  base::Command command;
  command.argv = {"systemctl", "restart", "--", unit};
  return command;
}

base::Command shell_command(const std::string& line, const base::fs::path& directory) {
  base::Command command;
  command.argv = {"/bin/sh", "-c", line};
  command.directory = directory;
  return command;
}

std::string without_secrets(std::string text, const std::vector<std::string>& secrets) {
  std::vector<std::string> longest_first = secrets;
  std::ranges::sort(longest_first, std::greater(), &std::string::size);
  for (const std::string& secret : longest_first) {
    if (secret.empty()) continue;
    for (std::size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at)) {
      text.replace(at, secret.size(), crossed_out);
      at += crossed_out.size();
    }
  }
  cross_out_passwords(text);
  return text;
}

Deployment deploy(base::Command command, base::Microseconds limit,
                  const std::vector<std::string>& secrets) {
  const base::TemporaryDirectory scratch("holdfast-deploy");
  const base::fs::path log = scratch.path() / "log";
  command.own_group = true;
  Deployment result;
  const auto begun = std::chrono::steady_clock::now();
  {
    base::Child child(command, log);
    while (!child.wait_for(std::chrono::milliseconds(100))) {
      result.timed_out = std::chrono::steady_clock::now() - begun > limit;
      if (!result.timed_out && !base::interrupted()) continue;
      end_group(child);
      break;
    }
    result.status = child.wait();
  }
  if (!result.timed_out) base::stop_if_interrupted();
  result.took =
      std::chrono::duration_cast<base::Microseconds>(std::chrono::steady_clock::now() - begun);
  // Crossed out before it is cut: half a secret would not be found.
  result.output = without_secrets(std::string(base::text(base::read_existing_file(log))), secrets);
  if (result.output.size() > kept_bytes) {
    result.output.erase(0, result.output.size() - kept_bytes);
  }
  return result;
}

}  // namespace holdfast::service
