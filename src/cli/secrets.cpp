#include "operations/secrets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/secrecy.h"
#include "cli/command.h"
#include "operations/secret_sources.h"
#include "operations/secret_targets.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;
using operations::BundleInfo;
using operations::SecretFacts;
using operations::TargetState;

struct Options {
  std::string bundle;
  std::string identity;
  operations::SecretTargetRequest target;
  bool dry_run = false;
  bool replace = false;
  operations::Incident incident;
};

/// Long enough to compare by eye.
std::string shown(const std::string& fingerprint) {
  return fingerprint.empty() ? "-" : fingerprint.substr(0, 12);
}

std::string age_of(base::Timestamp time) {
  return base::to_string_short(
      std::chrono::duration_cast<std::chrono::minutes>(base::now() - time));
}

json to_json(const BundleInfo& info) {
  json secrets = json::array();
  for (const SecretFacts& each : info.secrets) secrets.push_back(operations::to_json(each));
  return {{"bundle", info.id},       {"created", base::to_iso(info.created)},
          {"bytes", info.bytes},     {"recipients", info.recipients},
          {"offline", info.offline}, {"secrets", secrets}};
}

void print(const BundleInfo& info) {
  std::cout << fmt::format("Bundle {}  sealed {} ({} ago), {}, to {} recipients, {} off line\n",
                           info.id, base::to_string(info.created), age_of(info.created),
                           base::size_text(info.bytes), info.recipients.size(),
                           info.offline.size());
}

void seal(Invocation& invocation) {
  base::guard_memory();
  const auto secrets = operations::read_secret_sources(invocation.configuration());
  for_each_repository(invocation, [&](const operations::Configuration& each) {
    const operations::Site site = operations::open_site(each, invocation.cluster);
    const operations::SealOutcome outcome = operations::seal_secrets(site, secrets);
    if (invocation.json) {
      json document = to_json(outcome.bundle);
      document["sealed"] = outcome.sealed;
      return print_json(invocation, document);
    }
    std::cout << fmt::format(
        "{} {} secrets, {} recipients, {} off line\n",
        outcome.sealed ? fmt::format("Sealed bundle {}:", outcome.bundle.id)
                       : fmt::format("Nothing has changed since bundle {}:", outcome.bundle.id),
        secrets.size(), outcome.bundle.recipients.size(), outcome.bundle.offline.size());
  });
}

void list(Invocation& invocation) {
  for_each_repository(invocation, [&](const operations::Configuration& each) {
    const operations::Site site = operations::open_site(each, invocation.cluster);
    const operations::BundleList list = operations::list_bundles(site);
    if (!list.unreadable.empty()) {
      invocation.exit_status = base::info(Code::corrupt).exit_status;
    }
    if (invocation.json) {
      json bundles = json::array();
      for (const BundleInfo& bundle : list.bundles) bundles.push_back(to_json(bundle));
      return print_json(invocation, {{"bundles", bundles}, {"unreadable", list.unreadable}});
    }
    for (const BundleInfo& bundle : list.bundles) print(bundle);
    for (const std::string& why : list.unreadable) std::cout << "CANNOT BE READ  " << why << "\n";
    if (list.bundles.empty()) {
      std::cout << "There is no bundle of secrets.\n";
      return;
    }
    std::cout << "\nThe newest has:\n";
    for (const SecretFacts& facts : list.bundles.back().secrets) {
      std::cout << fmt::format("  {:<28} {}  version {}, {} old{}{}\n", facts.name,
                               shown(facts.fingerprint), facts.version, age_of(facts.since),
                               facts.kind.empty() ? "" : ", " + facts.kind,
                               facts.owner.empty() ? "" : ", of " + facts.owner);
    }
  });
}

operations::ChosenBundle choose(const std::vector<operations::Configuration>& repositories,
                                const Invocation& invocation, const Options& options) {
  return operations::choose_bundle(repositories, invocation.cluster, options.bundle, print_failure);
}

std::vector<operations::Configuration> repositories_of(const Invocation& invocation) {
  return operations::each_repository(invocation.configuration(), invocation.repositories);
}

void diff(Invocation& invocation, const Options& options) {
  base::guard_memory();
  const auto repositories = repositories_of(invocation);
  const auto secrets = operations::read_secret_sources(repositories.front());
  const auto chosen = choose(repositories, invocation, options);
  const auto differences = operations::compare_secrets(chosen, secrets);
  const bool same = std::ranges::all_of(
      differences, [](const auto& each) { return each.change == operations::SecretChange::same; });
  if (!same) invocation.exit_status = base::info(Code::check_failed).exit_status;
  if (invocation.json) {
    json list = json::array();
    for (const auto& each : differences) {
      list.push_back({{"name", each.name},
                      {"change", operations::name_of(each.change)},
                      {"sealed", each.sealed},
                      {"now", each.now}});
    }
    return print_json(invocation, {{"bundle", chosen.info.id}, {"same", same}, {"secrets", list}});
  }
  print(chosen.info);
  for (const auto& each : differences) {
    std::cout << fmt::format("  {:<8} {:<28} {:<12} {}\n", operations::name_of(each.change),
                             each.name, shown(each.sealed), shown(each.now));
  }
  std::cout << (same ? "The bundle has what the sources have.\n"
                     : "The bundle has NOT what the sources have: `holdfast secrets seal`\n");
}

json to_json(const std::vector<operations::TargetFinding>& findings) {
  json list = json::array();
  for (const auto& each : findings) {
    list.push_back({{"name", each.name}, {"state", operations::name_of(each.state)}});
  }
  return list;
}

void restore(Invocation& invocation, const Options& options) {
  base::guard_memory();
  const auto target = operations::open_secret_target(options.target);
  const auto repositories = repositories_of(invocation);
  const auto chosen = choose(repositories, invocation, options);
  const auto secrets =
      operations::meant_for(options.target, operations::open_bundle(chosen, options.identity));
  auto outcome = operations::restore_secrets(*target, secrets, options.replace, options.dry_run);
  std::ranges::move(operations::left_out(options.target, chosen.info.secrets),
                    std::back_inserter(outcome.found));
  if (invocation.json) {
    return print_json(invocation, {{"bundle", chosen.info.id},
                                   {"target", outcome.target},
                                   {"written", outcome.written},
                                   {"found", to_json(outcome.found)}});
  }
  print(chosen.info);
  for (const auto& each : outcome.found) {
    std::cout << fmt::format("  {:<8} {}\n", operations::name_of(each.state), each.name);
  }
  std::cout << fmt::format("{} {}: {} secrets\n",
                           options.dry_run   ? "Nothing was written to"
                           : outcome.written ? "Wrote to, and read back from,"
                                             : "Everything is there already in",
                           outcome.target, secrets.size());
}

void verify(Invocation& invocation, const Options& options) {
  base::guard_memory();
  const auto target = operations::open_secret_target(options.target);
  const auto repositories = repositories_of(invocation);
  const auto chosen = choose(repositories, invocation, options);
  const auto findings = operations::verify_secrets(*target, chosen, options.target);
  const bool good = std::ranges::all_of(findings, [](const auto& each) {
    return each.state == TargetState::same || each.state == TargetState::left_out;
  });
  if (!good) invocation.exit_status = base::info(Code::check_failed).exit_status;
  if (invocation.json) {
    return print_json(invocation, {{"bundle", chosen.info.id},
                                   {"target", target->describe()},
                                   {"ok", good},
                                   {"secrets", to_json(findings)}});
  }
  print(chosen.info);
  for (const auto& each : findings) {
    std::cout << fmt::format("  {:<8} {}\n", operations::name_of(each.state), each.name);
  }
  std::cout << fmt::format("{} {} what the bundle has{}.\n", target->describe(),
                           good ? "has" : "has NOT",
                           findings.front().state == TargetState::left_out
                               ? ", but for what is left out, which no target is named for"
                               : "");
}

void rotate_plan(Invocation& invocation, const Options& options) {
  const auto repositories = repositories_of(invocation);
  const auto chosen = choose(repositories, invocation, options);
  const auto plan = operations::plan_rotation(chosen.info.secrets, options.incident);
  if (invocation.json) {
    json list = json::array();
    for (const auto& each : plan) {
      list.push_back({{"name", each.facts.name},
                      {"class", each.facts.kind},
                      {"owner", each.facts.owner},
                      {"since", base::to_iso(each.facts.since)},
                      {"rotate", each.rotate},
                      {"why", each.why}});
    }
    return print_json(invocation, {{"bundle", chosen.info.id}, {"secrets", list}});
  }
  print(chosen.info);
  for (const auto& each : plan) {
    std::cout << fmt::format("{:<7} {}{}\n        {}\n", each.rotate ? "ROTATE" : "keep",
                             each.facts.name,
                             each.facts.owner.empty() ? "" : ", of " + each.facts.owner, each.why);
  }
}

void add_bundle(CLI::App& command, Options& options) {
  command.add_option("--bundle", options.bundle, "Which bundle; the newest by default")
      ->type_name("ID");
}

void add_target(CLI::App& command, Options& options) {
  command.add_option("--to", options.target.kind, "Where they are to be")
      ->required()
      ->check(CLI::IsMember(operations::secret_target_kinds));
  command.add_option("--path", options.target.path, "The environment file, or the directory")
      ->type_name("PATH");
  command.add_option("--prefix", options.target.prefix, "Before each name in a store: prod/")
      ->type_name("TEXT");
  command.add_option("--mount", options.target.mount, "Where KV version 2 is in Vault; \"secret\"")
      ->type_name("NAME");
  command.add_option("--only", options.target.only, "Only this secret; may be repeated")
      ->type_name("NAME");
}

using Work = void (*)(Invocation&, const Options&);

CLI::App* add_one(CLI::App& secrets, Invocation& invocation, const std::string& name,
                  const std::string& description, std::initializer_list<Code> codes,
                  const std::shared_ptr<Options>& options, Work work) {
  CLI::App* command = add_command(secrets, invocation, name, description, codes,
                                  [&invocation, options, work] { work(invocation, *options); });
  add_repositories(*command, invocation);
  return command;
}

}  // namespace

void add_secrets(CLI::App& app, Invocation& invocation) {
  CLI::App* secrets =
      app.add_subcommand("secrets", "Keep a service's secrets sealed beside its backups");
  secrets->require_subcommand(1);
  const auto options = std::make_shared<Options>();
  const auto add = [&](const std::string& name, const std::string& description,
                       std::initializer_list<Code> codes, Work work) {
    return add_one(*secrets, invocation, name, description, codes, options, work);
  };
  add("seal", "Seal what [secrets] names to its recipients, if anything has changed",
      {Code::configuration, Code::not_found, Code::refused, Code::conflict},
      [](Invocation& each, const Options&) { seal(each); });
  add("list", "Show bundles, and names and fingerprints of secrets", {Code::corrupt},
      [](Invocation& each, const Options&) { list(each); });
  add_bundle(*add("diff", "Compare a bundle with the sources, without opening it",
                  {Code::check_failed, Code::not_found}, diff),
             *options);
  CLI::App* back = add("restore", "Open a bundle and write its secrets where they are needed",
                       {Code::key, Code::refused, Code::not_found, Code::permission}, restore);
  back->add_option("--identity", options->identity, "The file that age-keygen wrote")
      ->type_name("FILE");
  back->add_flag("--dry-run", options->dry_run, "Only show what is there and what is not");
  back->add_flag("--replace", options->replace, "Replace what is there and differs");
  add_bundle(*back, *options);
  add_target(*back, *options);
  CLI::App* check = add("verify", "Read secrets back from where they are, and compare fingerprints",
                        {Code::check_failed, Code::not_found, Code::permission}, verify);
  add_bundle(*check, *options);
  add_target(*check, *options);
  CLI::App* plan = add("rotate-plan", "Say which secrets to rotate after a recovery, and why",
                       {Code::not_found}, rotate_plan);
  plan->add_flag("--host-lost", options->incident.host_lost,
                 "The old machine, or its disk, is in nobody's hands");
  plan->add_flag("--compromised", options->incident.compromised,
                 "Somebody may have read secrets, or used them");
  add_bundle(*plan, *options);
}

}  // namespace holdfast::cli
