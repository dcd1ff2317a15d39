#include "operations/secret_targets.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "service/environment_file.h"
#include "service/secret_store.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

class EnvironmentFile : public SecretTarget {
 public:
  explicit EnvironmentFile(path file) : file_(std::move(file)) {}
  std::string describe() const override { return "environment file " + file_.string(); }

  std::optional<std::string> read(const std::string& name) override {
    for (const auto& [each, value] : variables()) {
      if (each == name) return value;
    }
    return std::nullopt;
  }
  void check(const Secret& secret) const override {
    if (service::is_variable_name(secret.facts.name) &&
        secret.value.find('\0') == std::string::npos)
      return;
    throw Error(
        Code::usage,
        fmt::format("cannot write {} to an environment file: it is no variable", secret.facts.name),
        "say which ones with --only, or give it targets in [secrets.about]");
  }
  std::vector<std::string> others(const std::vector<Secret>& all) override {
    std::vector<std::string> names;
    for (const auto& [name, value] : variables()) {
      const auto same = [&](const Secret& each) { return each.facts.name == name; };
      if (std::ranges::none_of(all, same)) names.push_back(name);
    }
    return names;
  }
  void write(const std::vector<Secret>& all, const std::vector<Secret>&) override {
    if (const auto before = base::read_file(file_); before && !before->empty()) {
      base::replace_file(file_.string() + ".previous", *before, 0600);
    }
    service::EnvironmentValues variables;
    for (const Secret& each : all) variables.emplace_back(each.facts.name, each.value);
    base::replace_file(file_, base::view(service::environment_text(variables)), 0600);
  }

 private:
  service::EnvironmentValues variables() const {
    const auto bytes = base::read_file(file_);
    if (!bytes) return {};
    return service::environment_values(base::text(*bytes), file_.string());
  }
  path file_;
};

class SecretDirectory : public SecretTarget {
 public:
  explicit SecretDirectory(path directory) : directory_(std::move(directory)) {}
  std::string describe() const override { return "directory " + directory_.string(); }

  std::optional<std::string> read(const std::string& name) override {
    const auto bytes = base::read_file(directory_ / name);
    if (!bytes) return std::nullopt;
    return std::string(base::text(*bytes));
  }
  void check(const Secret& secret) const override {
    const std::string& name = secret.facts.name;
    if (name.front() != '.' && name.find('/') == std::string::npos) return;
    base::fail(Code::usage, "cannot use {} as the name of a file", name);
  }
  void write(const std::vector<Secret>&, const std::vector<Secret>& changed) override {
    base::make_directories(directory_, 0700);
    if (::chmod(directory_.c_str(), 0700) != 0) {
      base::fail_errno(fmt::format("protect \"{}\"", directory_.string()), errno);
    }
    for (const Secret& each : changed) {
      base::replace_file(directory_ / each.facts.name, base::view(each.value), 0400);
    }
  }

 private:
  path directory_;
};

/// A store that others run.
class RemoteStore : public SecretTarget {
 public:
  RemoteStore(std::unique_ptr<service::SecretStore> store, std::string what, std::string prefix)
      : store_(std::move(store)), what_(std::move(what)), prefix_(std::move(prefix)) {}
  std::string describe() const override { return what_; }
  std::optional<std::string> read(const std::string& name) override {
    return store_->read(prefix_ + name);
  }
  void check(const Secret& secret) const override {
    constexpr std::size_t limit = 65536;  // of AWS; Vault takes more
    if (secret.value.size() <= limit && !secret.value.empty()) return;
    base::fail(Code::usage, "cannot store {} in {}: it is empty, or larger than 64 KiB",
               secret.facts.name, what_);
  }
  void write(const std::vector<Secret>&, const std::vector<Secret>& changed) override {
    for (const Secret& each : changed) store_->write(prefix_ + each.facts.name, each.value);
  }

 private:
  std::unique_ptr<service::SecretStore> store_;
  std::string what_;
  std::string prefix_;
};

std::string names_of(const std::vector<TargetFinding>& found, TargetState state) {
  std::string names;
  for (const TargetFinding& each : found) {
    if (each.state == state) names += (names.empty() ? "" : ", ") + each.name;
  }
  return names;
}

void refuse_to_replace(const SecretTarget& target, const std::vector<TargetFinding>& found) {
  const std::string differ = names_of(found, TargetState::differs);
  const std::string extra = names_of(found, TargetState::extra);
  if (differ.empty() && extra.empty()) return;
  throw Error(Code::refused,
              fmt::format("{} has {}{}{}: nothing was written", target.describe(),
                          differ.empty() ? "" : "other values of " + differ,
                          differ.empty() || extra.empty() ? "" : ", and ",
                          extra.empty() ? "" : "variables that the bundle does not have: " + extra),
              "the bundle may be older than what is there; --replace writes it all the same");
}

}  // namespace

std::unique_ptr<SecretTarget> open_secret_target(const SecretTargetRequest& request) {
  const bool files = request.kind == "envfile" || request.kind == "compose-secrets";
  if (files == request.path.empty()) {
    throw Error(Code::usage,
                files ? fmt::format("cannot tell where: --to {} needs --path", request.kind)
                      : fmt::format("--path is not for --to {}", request.kind),
                "see `holdfast secrets restore --help`");
  }
  if (request.kind == "envfile") return std::make_unique<EnvironmentFile>(request.path);
  if (request.kind == "compose-secrets") return std::make_unique<SecretDirectory>(request.path);
  if (request.kind == "aws-sm") {
    const auto settings = service::aws_secrets_from_environment();
    return std::make_unique<RemoteStore>(service::aws_secrets_manager(settings),
                                         "AWS Secrets Manager in " + settings.region,
                                         request.prefix);
  }
  service::VaultSettings settings = service::vault_from_environment();
  if (!request.mount.empty()) settings.mount = request.mount;
  const std::string what = fmt::format("Vault at {}, {}", settings.address, settings.mount);
  return std::make_unique<RemoteStore>(service::vault_kv2(std::move(settings)), what,
                                       request.prefix);
}

bool belongs_there(const SecretFacts& facts, const SecretTargetRequest& request) {
  if (!request.only.empty()) {
    return std::ranges::find(request.only, facts.name) != request.only.end();
  }
  if (!facts.targets.empty()) {
    return std::ranges::find(facts.targets, request.kind) != facts.targets.end();
  }
  // A file's content may be of any size and shape; what a command prints is what a variable holds.
  return request.kind != "envfile" || facts.source == "env_file" ||
         (facts.source == "command" && service::is_variable_name(facts.name));
}

std::vector<Secret> meant_for(const SecretTargetRequest& request, std::vector<Secret> secrets) {
  for (const std::string& name : request.only) {
    const auto same = [&](const Secret& each) { return each.facts.name == name; };
    if (std::ranges::any_of(secrets, same)) continue;
    throw Error(Code::not_found, fmt::format("cannot find secret \"{}\" in the bundle", name),
                "`holdfast secrets list` shows their names");
  }
  std::erase_if(secrets, [&](const Secret& each) { return !belongs_there(each.facts, request); });
  if (secrets.empty()) {
    throw Error(Code::not_found, fmt::format("no secret in the bundle is for {}", request.kind),
                "name some with --only, or give them targets in [secrets.about]");
  }
  return secrets;
}

std::vector<TargetFinding> left_out(const SecretTargetRequest& request,
                                    const std::vector<SecretFacts>& all) {
  std::vector<TargetFinding> found;
  if (!request.only.empty()) return found;
  for (const SecretFacts& each : all) {
    if (each.targets.empty() && !belongs_there(each, request)) {
      found.push_back({each.name, TargetState::left_out});
    }
  }
  return found;
}

std::string_view name_of(TargetState state) {
  switch (state) {
    case TargetState::same:
      return "same";
    case TargetState::differs:
      return "differs";
    case TargetState::missing:
      return "missing";
    case TargetState::extra:
      return "extra";
    case TargetState::left_out:
      return "left out";
  }
  return "";
}

SecretRestore restore_secrets(SecretTarget& target, const std::vector<Secret>& secrets,
                              bool replace, bool dry_run) {
  SecretRestore restore;
  restore.target = target.describe();
  std::vector<Secret> changed;
  for (const Secret& each : secrets) {
    target.check(each);
    const auto there = target.read(each.facts.name);
    const auto state = !there                 ? TargetState::missing
                       : *there == each.value ? TargetState::same
                                              : TargetState::differs;
    restore.found.push_back({each.facts.name, state});
    if (state != TargetState::same) changed.push_back(each);
  }
  for (const std::string& name : target.others(secrets)) {
    restore.found.push_back({name, TargetState::extra});
  }
  if (dry_run) return restore;
  if (!replace) refuse_to_replace(target, restore.found);
  const bool extra = !names_of(restore.found, TargetState::extra).empty();
  if (changed.empty() && !extra) return restore;
  target.write(secrets, changed);
  for (const Secret& each : secrets) {
    if (target.read(each.facts.name) == each.value) continue;
    base::fail(Code::io, "wrote {} to {}, but it does not read back as it was written",
               each.facts.name, target.describe());
  }
  restore.written = true;
  return restore;
}

std::vector<TargetFinding> verify_secrets(SecretTarget& target, const ChosenBundle& chosen,
                                          const SecretTargetRequest& request) {
  std::vector<Secret> expected;
  std::vector<TargetFinding> findings = left_out(request, chosen.info.secrets);
  for (const SecretFacts& each : chosen.info.secrets) expected.push_back({each, {}});
  for (const Secret& each : meant_for(request, std::move(expected))) {
    const std::string& name = each.facts.name;
    const auto there = target.read(name);
    const auto state = !there ? TargetState::missing
                       : secret_fingerprint(chosen.site, name, *there) == each.facts.fingerprint
                           ? TargetState::same
                           : TargetState::differs;
    findings.push_back({name, state});
  }
  return findings;
}

}  // namespace holdfast::operations
