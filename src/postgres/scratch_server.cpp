#include "postgres/scratch_server.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "postgres/connection.h"
#include "postgres/data_directory.h"

namespace holdfast::postgres {

namespace {

using base::Code;
using base::Error;

/// Libraries whose business is to do things by themselves.
constexpr std::array<std::string_view, 9> job_starters = {
    "pg_cron", "pg_partman_bgw", "pg_squeeze", "pglogical",    "bdr",
    "pg_net",  "pgagent",        "pg_task",    "pg_background"};

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

/// What the cluster's configuration files say, as PostgreSQL itself understands them.
std::string configured(const Installation& installation, const base::fs::path& data_directory,
                       const std::string& setting) {
  base::Command command;
  command.argv = {(installation.bin / "postgres").string(), "-D", data_directory.string(), "-C",
                  setting};
  command.directory = "/";
  command.user = owner_of(data_directory);
  const base::Outcome outcome = base::run(command);
  if (outcome.status != 0) {
    base::fail(Code::postgres, "the configuration in \"{}\" cannot be read: {}",
               data_directory.string(), one_line(outcome.errors));
  }
  return outcome.output.substr(0, outcome.output.find('\n'));
}

Settings sandbox(int major, bool durable) {
  Settings settings = {
      {"archive_mode", "off"},
      {"primary_conninfo", ""},
      {"primary_slot_name", ""},
      {"archive_cleanup_command", ""},
      {"recovery_end_command", ""},
      {"recovery_min_apply_delay", "0"},
      // No standby of anybody: promoted at its target, it is asked questions only then. And so it
      // does not matter how small this machine's limits are against those of the source.
      {"hot_standby", "off"},
      {"max_logical_replication_workers", "0"},
      {"synchronous_standby_names", ""},
      {"autovacuum", "off"},
      {"ssl", "off"},
      {"session_preload_libraries", ""},
      {"local_preload_libraries", ""},
      {"cluster_name", "holdfast scratch"},
      {"external_pid_file", ""},
      {"log_min_messages", "warning"},
      {"log_statement", "none"},  // rows of the cluster have no business in the log
      {"log_min_duration_statement", "-1"},
      {"log_min_error_statement", "panic"},
      {"log_error_verbosity", "terse"},  // nor have the details of errors
      {"lc_messages", "C"},
      {"huge_pages", "off"},
      // What the source's machine had, this one may lack.
      {"shared_buffers", "256MB"},
      {"maintenance_work_mem", "128MB"},
      {"default_transaction_read_only", "off"},
      // A server that dies while it is looked at is a finding: it must not hide that.
      {"restart_after_crash", "off"},
      {"jit", "off"},
      {"idle_in_transaction_session_timeout", "0"},
  };
  if (!durable) {
    settings.insert(settings.end(), {{"fsync", "off"},
                                     {"full_page_writes", "off"},
                                     {"synchronous_commit", "off"},
                                     {"max_wal_size", "4GB"}});
  }
  if (major >= 17) {
    settings.emplace_back("event_triggers", "off");
    settings.emplace_back("sync_replication_slots", "off");
    settings.emplace_back("summarize_wal", "off");
  }
  if (major >= 18) settings.emplace_back("io_method", "worker");
  return settings;
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

ScratchServer::ScratchServer(const base::fs::path& data_directory, const ScratchOptions& options)
    : data_directory_(base::fs::absolute(data_directory)),
      installation_(installation_for(data_directory_)),
      superuser_(options.superuser) {
  for (std::string& name :
       preload_list(configured(installation_, data_directory_, "shared_preload_libraries"))) {
    const std::string stem = base::fs::path(name).stem();
    const bool starts_jobs = std::ranges::find(job_starters, stem) != job_starters.end();
    (starts_jobs ? left_out_ : libraries_).push_back(std::move(name));
  }
  start(options);
  ask_how_far();
}

void ScratchServer::start(const ScratchOptions& options) {
  ServerOptions how;
  how.limit = options.limit;
  how.user = owner_of(data_directory_);
  how.superuser = options.superuser;
  how.log = options.log;
  constexpr std::size_t longest_parent = 70;
  if (!options.place.empty() && options.place.native().size() <= longest_parent) {
    how.socket_parent = options.place;
  }
  how.trust_socket = true;
  how.ends_with_us = true;
  for (;;) {
    how.settings = sandbox(installation_.major, options.durable);
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

void ScratchServer::ask_how_far() {
  Session session(connection());
  const Row row = session
                      .query(
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
}

std::string ScratchServer::connection(std::string_view database) const {
  return server_->connection(database);
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
  server_->stop(mode);
  server_.reset();
}

}  // namespace holdfast::postgres
