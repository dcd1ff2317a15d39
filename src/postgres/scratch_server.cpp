#include "postgres/scratch_server.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/error.h"
#include "postgres/connection.h"
#include "postgres/data_directory.h"
#include "postgres/scratch_settings.h"
#include "postgres/shared_names.h"
#include "postgres/timeline_history.h"

namespace holdfast::postgres {

namespace {

using base::Code;
using base::Error;

/// Libraries whose business is to do things by themselves.
constexpr std::array<std::string_view, 13> job_starters = {
    "pg_cron",       "pg_partman_bgw", "pg_squeeze", "pglogical",     "bdr",    "spock",
    "pg_net",        "pgagent",        "pg_task",    "pg_background", "repmgr", "pg_failover_slots",
    "bgw_replstatus"};

constexpr std::string_view own_role = "holdfast_scratch";

/// For each connection: settings of roles and databases would win over the command line.
constexpr std::string_view session_options =
    "-c default_transaction_read_only=off -c role=none -c statement_timeout=0 -c lock_timeout=0 "
    "-c session_preload_libraries= -c local_preload_libraries= -c log_statement=none "
    "-c log_min_duration_statement=-1 -c zero_damaged_pages=off -c ignore_checksum_failure=off";

Installation installation_for(const base::fs::path& data_directory) {
  const int major = major_version(data_directory);
  auto found = find_installation(major);
  if (found) return *std::move(found);
  throw Error(
      Code::not_found,
      fmt::format("could not find PostgreSQL {} to start \"{}\" with", major,
                  data_directory.string()),
      fmt::format("install it (apt-get install postgresql-{}), or name the directory of its "
                  "programs in HOLDFAST_PG_BIN",
                  major));
}

std::optional<base::User> owner_of(const base::fs::path& directory) {
  if (!base::running_as_root()) return std::nullopt;
  const auto status = base::status_of(directory);
  auto owner = status && status->st_uid != 0 ? base::find_user(status->st_uid) : std::nullopt;
  return owner ? owner : server_user();
}

/// Of 'could not access file "pg_nothing": No such file or directory' the file's name.
std::optional<std::string> library_that_is_missing(std::string_view log) {
  constexpr std::string_view before = "could not access file \"";
  const std::size_t at = log.rfind(before);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = log.substr(at + before.size());
  return std::string(rest.substr(0, rest.find('"')));
}

std::string url_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-_.~").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

std::vector<std::string> preload_list(std::string_view setting) {
  std::vector<std::string> names;
  std::string name;
  bool quoted = false;
  for (std::size_t i = 0; i <= setting.size(); ++i) {
    const char c = i < setting.size() ? setting[i] : ',';
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && (!quoted || i == setting.size())) {
      if (!name.empty()) names.push_back(std::exchange(name, {}));
    } else if (quoted || (c != ' ' && c != '\t')) {
      name += c;
    }
  }
  return names;
}

namespace {

/// What /proc/PID/status says under a name; nullopt: it does not.
std::optional<long> in_status(const std::string& pid, std::string_view name) {
  const auto bytes = base::read_file(base::fs::path("/proc") / pid / "status");
  if (!bytes) return std::nullopt;
  const std::string_view text = base::text(*bytes);
  const std::string line = fmt::format("\n{}:\t", name);
  const std::size_t at = text.find(line);
  if (at == std::string_view::npos) return std::nullopt;
  return std::strtol(text.data() + at + line.size(), nullptr, 10);
}

/// Ends what a server in a cage started and let go of, which has become ours: it is known by one
/// system call filter more than we have. A kernel that does not count them (before 5.9) cannot
/// tell.
void end_orphans() {
  const auto ours = in_status("self", "Seccomp_filters");
  if (!ours) return;
  bool found = true;
  for (int round = 0; found && round < 100; ++round) {
    found = false;
    for (const auto& name : base::directory_names("/proc").value_or(std::vector<std::string>{})) {
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      if (in_status(name, "PPid") != ::getpid()) continue;
      if (in_status(name, "Seccomp_filters").value_or(0) <= *ours) continue;
      const auto pid = static_cast<pid_t>(std::strtol(name.c_str(), nullptr, 10));
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
      found = true;
    }
  }
}

}  // namespace

ScratchServer::~ScratchServer() {
  server_.reset();
  end_orphans();
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

ScratchServer::ScratchServer(const base::fs::path& data_directory, const ScratchOptions& options)
    : data_directory_(base::fs::absolute(data_directory)),
      installation_(installation_for(data_directory_)) {
  start(options);
}

void ScratchServer::start(const ScratchOptions& options) {
  const auto recovery = base::read_file(data_directory_ / "postgresql.auto.conf");
  ServerOptions how;
  how.settings = scratch_settings(known_settings(installation_),
                                  recovery ? base::text(*recovery) : "", options.durable);
  how.limit = options.limit;
  how.user = owner_of(data_directory_);
  how.log = options.log;
  constexpr std::size_t longest_parent = 70;
  if (!options.place.empty() && options.place.native().size() <= longest_parent) {
    how.socket_parent = options.place;
  }
  how.trust_socket = true;
  how.ends_with_us = true;
  how.caged_to = options.writable;
  how.connections = options.connections;
  for (std::string& name : preload_list(configured("shared_preload_libraries", how))) {
    const std::string stem = base::fs::path(name).stem();
    const bool starts_jobs = std::ranges::find(job_starters, stem) != job_starters.end();
    (starts_jobs ? left_out_ : libraries_).push_back(std::move(name));
  }
  start_without_missing_libraries(how);
  // From here on orphans come to us; until now there were many, which fetched WAL and end by
  // themselves.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  try {
    come_in(options, how);
  } catch (const Error& error) {
    if (error.code() == Code::interrupted) throw;
    stop();
    throw;
  }
}

void ScratchServer::start_without_missing_libraries(ServerOptions& how) {
  const Settings before = how.settings;
  for (;;) {
    how.settings = before;
    std::string list;
    for (const std::string& name : libraries_) {
      list += fmt::format("{}\"{}\"", list.empty() ? "" : ",", name);
    }
    how.settings.emplace_back("shared_preload_libraries", list);
    try {
      server_.emplace(installation_, data_directory_, how);
      return;
    } catch (const Error& error) {
      // A server whose libraries are missing has not begun to recover.
      const auto missing = library_that_is_missing(error.message());
      const auto found = missing ? std::ranges::find(libraries_, *missing) : libraries_.end();
      if (found == libraries_.end()) throw;
      left_out_.push_back(*found);
      libraries_.erase(found);
    }
  }
}

namespace {

/// The program itself, to be asked something on this directory.
base::Command postgres_on(const Installation& installation, const base::fs::path& data_directory,
                          const ServerOptions& how, const std::vector<std::string>& first) {
  base::Command command;
  command.argv = {(installation.bin / "postgres").string()};
  command.argv.insert(command.argv.end(), first.begin(), first.end());
  command.argv.insert(command.argv.end(), {"-D", data_directory.string()});
  const auto set = [&](std::string_view name, std::string_view value) {
    command.argv.insert(command.argv.end(), {"-c", fmt::format("{}={}", name, value)});
  };
  for (const auto& [name, value] : how.settings) set(name, value);
  set("data_directory", data_directory.string());
  command.directory = "/";
  command.user = how.user;
  return command;
}

base::Outcome run_caged(const base::Command& command, const base::fs::path& data_directory,
                        const ServerOptions& how) {
  std::vector<base::fs::path> writable = *how.caged_to;
  writable.push_back(data_directory);
  return base::run(command, base::Cage(writable));
}

}  // namespace

/// What the cluster's configuration files say, as PostgreSQL itself understands them.
std::string ScratchServer::configured(const std::string& setting, const ServerOptions& how) const {
  const base::Outcome outcome = run_caged(
      postgres_on(installation_, data_directory_, how, {"-C", setting}), data_directory_, how);
  if (outcome.status != 0) {
    base::fail(Code::postgres, "the configuration in \"{}\" cannot be read: {}",
               data_directory_.string(), one_line(outcome.errors));
  }
  return outcome.output.substr(0, outcome.output.find('\n'));
}

/// Whoever may come in, wherever. Nothing is tried again: what is refused stays refused.
void ScratchServer::come_in(const ScratchOptions& options, ServerOptions& how) {
  bool started_again = false;
  if (!can_come_in(options.superuser, "postgres")) {
    SharedNames names = read_shared_names(data_directory_);
    names.superusers.insert(names.superusers.begin(), options.superuser);
    const auto anybody_can = [&] {
      return std::ranges::any_of(names.superusers, [&](const std::string& superuser) {
        return std::ranges::any_of(names.databases, [&](const std::string& database) {
          return can_come_in(superuser, database);
        });
      });
    };
    if (!anybody_can()) {
      if (options.durable) {
        base::fail(Code::postgres, "no superuser of the cluster can log in: {}", refused_);
      }
      make_superuser(how, names.databases);
      started_again = true;
      names.superusers = {std::string(own_role)};
      if (!anybody_can()) {
        base::fail(Code::postgres, "nobody can log in to the cluster: {}", refused_);
      }
    }
  }
  prove(options);
  ask_how_far(started_again);
}

bool ScratchServer::can_come_in(const std::string& superuser, const std::string& database) {
  superuser_ = superuser;
  database_ = database;
  try {
    if (session().value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t") {
      return true;
    }
    refused_ = fmt::format("{} is no superuser", superuser);
  } catch (const Error& error) {
    if (error.code() != Code::unreachable && error.code() != Code::postgres) throw;
    refused_ = error.message();
  }
  return false;
}

/// A server in single-user mode asks nobody who he is.
void ScratchServer::make_superuser(const ServerOptions& how,
                                   const std::vector<std::string>& databases) {
  server_->stop(Server::StopMode::fast);
  server_.reset();
  for (const std::string& database : databases) {
    base::Command command = postgres_on(installation_, data_directory_, how, {"--single"});
    command.argv.push_back(database);
    command.input = fmt::format(
        "SET default_transaction_read_only = off;\nCREATE ROLE {0};\n"
        "ALTER ROLE {0} SUPERUSER LOGIN CONNECTION LIMIT -1 VALID UNTIL 'infinity';\n",
        own_role);
    const base::Outcome outcome = run_caged(command, data_directory_, how);
    if (outcome.status == 0) break;
    refused_ = one_line(outcome.errors);
  }
  server_.emplace(installation_, data_directory_, how);
}

/// Is this what was to be started? The process is proven already (Server).
void ScratchServer::prove(const ScratchOptions& options) {
  Session at = session();
  const auto must_be = [&](const char* what, const std::string& is, const std::string& wanted) {
    if (is == wanted) return;
    base::fail(Code::refused,
               "cannot work with the server that was started on \"{}\": its {} is {}, not {}",
               data_directory_.string(), what, is, wanted);
  };
  must_be("data directory", at.setting("data_directory").value_or(""), data_directory_.string());
  must_be("port", at.setting("port").value_or(""), std::to_string(server_->port()));
  must_be("system", to_string(at.system_id()), options.system);
}

/// Of a server that was started again: from the history that its promotion wrote.
void ScratchServer::ask_how_far(bool started_again) {
  Session at = session();
  const Row row = at.query(
                        "SELECT coalesce(pg_last_wal_replay_lsn(), pg_current_wal_lsn()), "
                        "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), "
                        "(extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint")
                      .at(0);
  recovered_.replayed = parse_lsn(row.at(0).value_or("")).value_or(Lsn{});
  recovered_.timeline = {
      static_cast<std::uint32_t>(std::stoul(row.at(1).value_or("0"), nullptr, 16))};
  if (row.at(2)) {
    recovered_.last_commit = base::Timestamp(base::Microseconds(number<std::int64_t>(*row.at(2))));
  }
  const auto history =
      started_again
          ? base::read_file(data_directory_ / "pg_wal" / history_file_name(recovered_.timeline))
          : std::nullopt;
  if (history) {
    const TimelineHistory parsed(recovered_.timeline, base::text(*history));
    if (!parsed.switches().empty()) recovered_.replayed = parsed.switches().back().at;
  }
}

std::vector<std::string> refusals_in(const base::fs::path& log) {
  std::vector<std::string> found;
  const base::Bytes said = base::read_file(log).value_or(base::Bytes{});
  for (std::string_view left = base::text(said); !left.empty();) {
    const std::string_view line = left.substr(0, left.find('\n'));
    for (const char* answer : {"Permission denied", "Operation not permitted"}) {
      if (line.find(answer) != std::string_view::npos) found.emplace_back(line);
    }
    left.remove_prefix(std::min(line.size() + 1, left.size()));
  }
  return found;
}

std::string ScratchServer::connection(std::string_view database) const {
  return fmt::format("{} options='{}{}'",
                     server_->connection(database.empty() ? database_ : database, superuser_),
                     session_options,
                     // From 17 on event_triggers is off.
                     installation_.major < 17 ? " -c session_replication_role=replica" : "");
}

std::string ScratchServer::url(std::string_view database) const {
  return fmt::format("postgresql:///{}?host={}&port={}&user={}", url_escaped(database),
                     url_escaped(server_->socket_directory().string()), server_->port(),
                     url_escaped(superuser_));
}

Session ScratchServer::session(std::string_view database) const {
  return Session(connection(database));
}

void ScratchServer::stop(Server::StopMode mode) {
  if (server_) server_->stop(mode);
  server_.reset();
  end_orphans();
}

void silence_event_triggers(Session& session) {
  for (const Row& row : session.query(
           "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger "
           "WHERE evtenabled IN ('A', 'R')")) {
    session.query(row.at(0).value_or(""));
  }
}

}  // namespace holdfast::postgres
