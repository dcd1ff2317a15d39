#include "operations/secret_sources.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "service/environment_file.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

constexpr std::chrono::seconds most_time{60};

std::string content_of(const path& file) {
  const auto bytes = base::read_file(file);
  if (bytes) return std::string(base::text(*bytes));
  throw Error(Code::not_found,
              fmt::format("could not read \"{}\": there is no such file", file.string()),
              "it is a source in [secrets]");
}

}  // namespace

std::string output_of_secret_command(const std::string& name, const std::string& command,
                                     std::chrono::seconds limit) {
  base::Command shell;
  // The program `timeout` kills it with all that it started; one that may ask on the terminal has
  // to stay in the foreground.
  shell.argv = {"timeout", "-s", "KILL"};
  if (::isatty(STDIN_FILENO) == 1) shell.argv.emplace_back("--foreground");
  shell.argv.insert(shell.argv.end(), {std::to_string(limit.count()), "/bin/sh", "-c", command});
  base::Outcome outcome = base::run(shell);
  constexpr int over = 124;
  constexpr int killed = 137;
  if (outcome.status == over || outcome.status == killed) {
    throw Error(Code::io,
                fmt::format("could not get secret {}: its command did not end within {} s", name,
                            limit.count()),
                "run the command by hand; it may wait for an answer");
  }
  if (outcome.status != 0) {
    throw Error(Code::io,
                fmt::format("could not get secret {}: its command ended with status {}", name,
                            outcome.status),
                "run the command by hand; what it said is not shown, as it may hold the secret");
  }
  if (outcome.output.ends_with('\n')) outcome.output.pop_back();
  if (outcome.output.empty()) {
    base::fail(Code::io, "could not get secret {}: its command printed nothing", name);
  }
  return std::move(outcome.output);
}

namespace {

void add(std::vector<Secret>& secrets, const std::string& name, std::string value,
         const std::string& source, const path& from) {
  const auto same = [&](const Secret& each) { return each.facts.name == name; };
  if (const auto other = std::ranges::find_if(secrets, same); other != secrets.end()) {
    throw Error(Code::conflict,
                fmt::format("cannot tell which secret {} is meant: two sources have it", name),
                "give one of them another name, or remove it from a source in [secrets]");
  }
  Secret secret;
  secret.facts.name = name;
  secret.facts.source = source;
  secret.facts.from = from.string();
  secret.value = std::move(value);
  secrets.push_back(std::move(secret));
}

void tell_about(std::vector<Secret>& secrets, const Configuration& configuration) {
  for (const SecretAbout& about : configuration.secrets.about) {
    const auto same = [&](const Secret& each) { return each.facts.name == about.name; };
    const auto found = std::ranges::find_if(secrets, same);
    if (found == secrets.end()) {
      throw Error(Code::configuration,
                  fmt::format("{}: [secrets.about.{}] is about no secret",
                              configuration.path.string(), about.name),
                  "no source has one of that name");
    }
    found->facts.kind = about.kind;
    found->facts.owner = about.owner;
    found->facts.rotate = about.rotate;
    found->facts.targets = about.targets;
  }
}

}  // namespace

std::vector<Secret> read_secret_sources(const Configuration& configuration) {
  const SecretsConfiguration& sources = configuration.secrets;
  if (!sources.has_sources()) {
    throw Error(Code::configuration,
                fmt::format("{}: [secrets] names no secrets", configuration.path.string()),
                "add env_files, [secrets.files] or [secrets.commands]; "
                "docs/security/secrets-management.md shows one");
  }
  std::vector<Secret> secrets;
  for (const path& file : sources.env_files) {
    for (auto& [name, value] : service::environment_values(content_of(file), file.string())) {
      add(secrets, name, std::move(value), "env_file", file);
    }
  }
  for (const auto& [name, file] : sources.files) {
    add(secrets, name, content_of(file), "file", file);
  }
  for (const auto& [name, command] : sources.commands) {
    add(secrets, name, output_of_secret_command(name, command, most_time), "command", {});
  }
  tell_about(secrets, configuration);
  std::ranges::sort(secrets, {}, [](const Secret& each) { return each.facts.name; });
  return secrets;
}

}  // namespace holdfast::operations
