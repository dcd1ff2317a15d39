#include "operations/cut_over.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/http.h"
#include "base/secrecy.h"
#include "operations/files.h"
#include "operations/restored_cluster.h"
#include "operations/secret_targets.h"
#include "postgres/session.h"
#include "service/database_url.h"
#include "service/environment_file.h"
#include "service/smoke_gate.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using nlohmann::json;
using Step = RecoveryStep;

const std::string to_go_on =
    "when it is mended, `holdfast recover --resume` goes on; `holdfast recover --undo` goes back";

/// What an answer tells of the database: why it is not the restored one; empty if it is.
std::string why_not_restored(const std::string& body, const Recovery& recovery) {
  const json document = json::parse(body, nullptr, false);
  const json none;
  const auto found = document.is_object() ? document.find("database") : document.end();
  if (!document.is_object() || found == document.end() || !found->is_object()) {
    return "its answer has no \"database\"";
  }
  const auto text = [&](const char* name) -> std::string {
    const auto member = found->find(name);
    if (member == found->end()) return "nothing";
    return member->is_string() ? member->get<std::string>() : member->dump();
  };
  if (text("system_identifier") != recovery.system_id) {
    return fmt::format("it works on system {}, not on {}", text("system_identifier"),
                       recovery.system_id);
  }
  if (text("timeline") != std::to_string(recovery.timeline)) {
    return fmt::format("it works on timeline {}, not on {}", text("timeline"), recovery.timeline);
  }
  const auto begins = postgres::parse_lsn(recovery.lsn);
  const auto reached = postgres::parse_lsn(text("lsn"));
  if (!reached || !begins || *reached < *begins) {
    return fmt::format("its database is at {}, before {}", text("lsn"), recovery.lsn);
  }
  return {};
}

StepResult prove_by_service(const RecoveryContext& context) {
  const std::string& url = context.settings().proof;
  std::string& why = context.waits_for;
  const bool proven = await_step(context.settings().limit(Step::proof), [&] {
    const base::HttpAnswer answer = base::http_get(url, std::chrono::seconds(5));
    why = !answer.status          ? answer.why_not
          : *answer.status != 200 ? fmt::format("it answers {}", *answer.status)
                                  : why_not_restored(answer.body, context.recovery());
    return why.empty();
  });
  if (!proven) {
    throw Error(Code::check_failed,
                fmt::format("the service does not work on the restored cluster: {}: {}", url, why),
                to_go_on);
  }
  return {false, fmt::format("{} names system {}, timeline {}, at or behind {}", url,
                             context.recovery().system_id, context.recovery().timeline,
                             context.recovery().lsn)};
}

StepResult prove_by_sessions(const RecoveryContext& context) {
  postgres::Session session(RestoredCluster::connection(context));
  std::string count;
  const bool proven = await_step(context.settings().limit(Step::proof), [&] {
    count = session.value(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND pid <> pg_backend_pid() AND application_name <> 'holdfast'");
    return count != "0";
  });
  if (!proven) {
    throw Error(Code::check_failed, "nobody is connected to the restored cluster",
                "does the service get the environment file that was written? " + to_go_on);
  }
  return {false, fmt::format("{} sessions of others are on the restored cluster", count)};
}

StepResult run_k6(const RecoveryContext& context) {
  base::Command command;
  command.argv = {"k6", "run", context.settings().smoke.string()};
  command.directory = context.configuration().path.parent_path();
  // As k6 ends when a threshold was crossed; all else says nothing of the service.
  constexpr int crossed = 99;
  const service::Deployment done = service::deploy(command, context.settings().limit(Step::smoke),
                                                   secrets_of_service(context.settings()));
  if (done.ok()) return {false, "k6: all thresholds hold"};
  throw Error(Code::check_failed,
              done.status == crossed ? std::string("the smoke gate is shut: k6 ended with 99")
                                     : fmt::format("k6 did not run to its end: {}", done.status),
              to_go_on);
}

}  // namespace

StepResult restore_secrets_of_service(const RecoveryContext& context) {
  const Recovery& recovery = context.recovery();
  const path& file = context.settings().environment_file;
  if (file.empty()) return skipped("[recover] names no environment_file");
  if (recovery.identity.empty()) return skipped("no --identity was given");
  base::guard_memory();
  const ChosenBundle chosen = choose_bundle(
      context.repositories, recovery.cluster, "", [&](const std::string& name, const Error& error) {
        context.progress.warn("repository {}: {}", name, error.message());
      });
  SecretTargetRequest request;
  request.kind = "envfile";
  request.path = file;
  base::make_directories(file.parent_path());
  const auto target = open_secret_target(request);
  const auto secrets = meant_for(request, open_bundle(chosen, recovery.identity));
  restore_secrets(*target, secrets, false, false);
  return {false, fmt::format("{} secrets of bundle {} are in {}", secrets.size(), chosen.info.id,
                             file.string())};
}

StepResult restore_files_of_service(const RecoveryContext& context) {
  const Site site = open_site(context.configuration(), context.recovery().cluster);
  std::map<std::string, FilesSet> newest;
  for (FilesSet& each : list_files(site)) {
    if (each.readable) newest[each.name] = std::move(each);
  }
  std::string found;
  for (const auto& [name, set] : newest) {
    const bool is_there = base::status_of(set.path).has_value();
    if (!is_there) {
      base::make_directories(path(set.path).parent_path());
      restore_files_set(site, name, set.backup, set.path);
    }
    found += fmt::format("{}{} {} {}", found.empty() ? "" : "; ", name,
                         is_there ? "is there already in" : "came back to", set.path);
  }
  if (found.empty()) return skipped("nothing was taken along with backups");
  return {false, found};
}

StepResult write_environment(const RecoveryContext& context) {
  const RecoverSettings& settings = context.settings();
  if (settings.environment_file.empty()) return skipped("[recover] names no environment_file");
  if (settings.database_host.empty()) {
    return skipped(
        fmt::format("{} stays: the restored cluster is where the old one was", settings.variable));
  }
  const auto old = service::read_variable(settings.environment_file, settings.variable);
  if (!old) {
    throw Error(Code::configuration,
                fmt::format("{} is not set in \"{}\"", settings.variable,
                            settings.environment_file.string()),
                "set it there, with any host, then `holdfast recover --resume`");
  }
  const std::string wanted =
      service::with_database_host(*old, settings.database_host, settings.database_port);
  if (wanted != *old) {
    // Known before it is done: what is taken back must have been changed by us.
    context.recovery().environment_written = true;
    context.journal.save();
    service::write_variable(settings.environment_file, settings.variable, wanted);
  }
  return {false, fmt::format("{} in {} leads to {}:{}", settings.variable,
                             settings.environment_file.string(), settings.database_host,
                             settings.database_port.value_or(5432))};
}

void undo_environment(const RecoveryContext& context) {
  Recovery& recovery = context.recovery();
  if (!recovery.environment_written) return;
  const RecoverSettings& settings = context.settings();
  // It may have been written down, and not done; then what was kept is of another day.
  const auto now = service::read_variable(settings.environment_file, settings.variable);
  const bool is_ours = now && *now == service::with_database_host(*now, settings.database_host,
                                                                  settings.database_port);
  if (is_ours) service::undo_write(settings.environment_file);
  recovery.environment_written = false;
}

StepResult deploy_service(const RecoveryContext& context) {
  const RecoverSettings& settings = context.settings();
  const base::Microseconds limit = settings.limit(Step::deploy);
  if (const auto line = settings.command(Step::deploy)) {
    run_user_command(context, name_of(Step::deploy), *line, limit);
    return {false, "by [recover.command] deploy"};
  }
  base::Command command;
  if (settings.compose) {
    command = service::compose_command(*settings.compose, limit);
  } else if (!settings.unit.empty()) {
    command = service::systemd_command(settings.unit);
  } else {
    return skipped("[recover] names neither compose nor unit");
  }
  const service::Deployment done = service::deploy(command, limit, secrets_of_service(settings));
  if (done.ok()) {
    return {false, settings.compose ? fmt::format("compose made {} anew", settings.compose->service)
                                    : fmt::format("restarted {}", settings.unit)};
  }
  const std::size_t length = std::min<std::size_t>(done.output.size(), 400);
  std::string said = done.output.substr(done.output.size() - length);
  std::ranges::replace(said, '\n', ' ');
  throw Error(
      Code::check_failed,
      fmt::format(
          "{} {}: {}", command.argv.front(),
          done.timed_out ? "did not end in time" : fmt::format("ended with {}", done.status), said),
      to_go_on);
}

StepResult await_ready(const RecoveryContext& context) {
  const std::string& url = context.settings().ready;
  if (url.empty()) return skipped("[recover] names no URL in ready");
  const base::Microseconds limit = context.settings().limit(Step::ready);
  std::string& why = context.waits_for;
  const bool ready = await_step(limit, [&] {
    const base::HttpAnswer answer = base::http_get(url, std::chrono::seconds(5));
    why = answer.status ? fmt::format("it answers {}", *answer.status) : answer.why_not;
    return answer.status == 200;
  });
  if (ready) return {false, url + " answers 200"};
  throw Error(
      Code::check_failed,
      fmt::format("{} does not answer 200 within {}: {}", url, base::to_string_short(limit), why),
      "look at the service's log; " + to_go_on);
}

StepResult prove_cut_over(const RecoveryContext& context) {
  const RecoverSettings& settings = context.settings();
  if (!settings.proof.empty()) return prove_by_service(context);
  const bool known = settings.compose || !settings.unit.empty() || !settings.ready.empty() ||
                     settings.command(Step::deploy);
  if (!known) return skipped("[recover] knows of no service");
  return prove_by_sessions(context);
}

StepResult pass_smoke(const RecoveryContext& context) {
  const path& file = context.settings().smoke;
  if (file.empty()) return skipped("[recover] names no script in smoke");
  if (file.extension() == ".js") return run_k6(context);
  const service::SmokeResult result = service::run_smoke(service::read_smoke(file));
  if (!result.passed()) {
    throw Error(Code::check_failed,
                fmt::format("the smoke gate is shut: {}", result.first_failure.empty()
                                                              ? "a threshold does not hold"
                                                              : result.first_failure),
                fmt::format("`holdfast smoke {}` shows all of it; {}", file.string(), to_go_on));
  }
  return {false, fmt::format("{} requests, all thresholds hold", result.durations.size())};
}

}  // namespace holdfast::operations
