#include "postgres/server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "postgres/session.h"

namespace holdfast::postgres {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds poll_interval{20};

bool is_program(const base::fs::path& file) {
  return ::access(file.c_str(), X_OK) == 0;
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

void add_colon_list(const std::optional<std::string>& list, std::vector<base::fs::path>& to) {
  for (std::string_view left = list ? *list : std::string_view(); !left.empty();) {
    const std::size_t end = std::min(left.find(':'), left.size());
    if (end > 0) to.emplace_back(left.substr(0, end));
    left.remove_prefix(std::min(end + 1, left.size()));
  }
}

/// Where distributions put the versions that they install side by side.
void add_packaged(std::vector<base::fs::path>& to) {
  for (const auto& name :
       base::directory_names("/usr/lib/postgresql").value_or(std::vector<std::string>{})) {
    to.push_back(base::fs::path("/usr/lib/postgresql") / name / "bin");
  }
  for (const auto& name : base::directory_names("/usr").value_or(std::vector<std::string>{})) {
    if (name.starts_with("pgsql-")) to.push_back(base::fs::path("/usr") / name / "bin");
  }
}

/// A program in PATH is often a link; its companions are where it leads.
void add_path(std::vector<base::fs::path>& to) {
  std::vector<base::fs::path> directories;
  add_colon_list(environment("PATH"), directories);
  for (const base::fs::path& directory : directories) {
    std::error_code failed;
    const base::fs::path real = base::fs::canonical(directory / "postgres", failed);
    if (!failed) to.push_back(real.parent_path());
  }
}

/// The end of a log, for error messages; without what it says to those who ask whether it is up.
std::string tail_of(const base::fs::path& log) {
  constexpr std::size_t length = 2000;
  const base::Bytes bytes = base::read_file(log).value_or(base::Bytes{});
  std::string text;
  for (std::string_view left = base::text(bytes); !left.empty();) {
    const std::string_view line = left.substr(0, left.find('\n'));
    const bool is_answer = line.find("FATAL:  the database system is ") != std::string_view::npos;
    if (!is_answer && !line.empty()) text.append(line).push_back('\n');
    left.remove_prefix(std::min(line.size() + 1, left.size()));
  }
  if (text.size() > length) {
    text.erase(0, text.size() - length);
    text.erase(0, text.find('\n') + 1);
  }
  if (text.ends_with('\n')) text.pop_back();
  return text.empty() ? "(its log is empty)" : text;
}

void give_to(const base::fs::path& file, const std::optional<base::User>& user) {
  if (!user) return;
  if (::chown(file.c_str(), user->uid, user->gid) != 0) {
    base::fail_errno(fmt::format("give \"{}\" to {}", file.string(), user->name), errno);
  }
}

struct Process {
  char state = '?';
  pid_t parent = 0;
};

/// Of /proc/PID/stat: "PID (NAME) STATE PARENT ...", where NAME may hold anything.
std::optional<Process> process(std::string_view pid) {
  const auto bytes = base::read_file(base::fs::path("/proc") / pid / "stat");
  if (!bytes) return std::nullopt;
  std::string_view text = base::text(*bytes);
  const std::size_t end = text.rfind(") ");
  if (end == std::string_view::npos || end + 4 >= text.size()) return std::nullopt;
  Process result;
  result.state = text[end + 2];
  text.remove_prefix(end + 4);
  std::from_chars(text.data(), text.data() + text.size(), result.parent);
  return result;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& name : base::directory_names("/proc").value_or(std::vector<std::string>{})) {
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid == 0) continue;
    const auto found = process(name);
    if (found && found->parent == parent) children.push_back(pid);
  }
  return children;
}

bool is_gone(pid_t pid) {
  const auto found = process(std::to_string(pid));
  return !found || found->state == 'Z';
}

/// A value in a libpq connection string; quoted where it must be.
std::string quote_connection_value(std::string_view value) {
  const bool plain = std::ranges::all_of(
      value, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  if (plain && !value.empty()) return std::string(value);
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + "'";
}

/// In recovery a server that has reached its target pauses there, by default.
bool recovery_is_over(Session& session) {
  const std::string paused = session.version_number() >= 140000
                                 ? "pg_get_wal_replay_pause_state() = 'paused'"
                                 : "pg_is_wal_replay_paused()";
  return session.value(fmt::format("SELECT CASE WHEN pg_is_in_recovery() THEN {} ELSE true END",
                                   paused)) == "t";
}

}  // namespace

std::optional<base::fs::path> Installation::program(std::string_view name) const {
  base::fs::path file = bin / name;
  if (!is_program(file)) return std::nullopt;
  return file;
}

Installation installation_in(const base::fs::path& bin) {
  if (!is_program(bin / "postgres")) {
    throw base::Error(base::Code::not_found,
                      fmt::format("there is no PostgreSQL in \"{}\"", bin.string()),
                      "name the directory that holds the program \"postgres\"");
  }
  base::Command command;
  command.argv = {(bin / "postgres").string(), "--version"};
  const std::string answer = base::run_checked(command);  // "postgres (PostgreSQL) 15.20 (Debian)"
  constexpr std::string_view before = "(PostgreSQL) ";
  const std::size_t at = answer.find(before);
  Installation installation{bin, 0};
  if (at != std::string::npos) {
    const char* number = answer.data() + at + before.size();
    std::from_chars(number, answer.data() + answer.size(), installation.major);
  }
  if (installation.major == 0) {
    base::fail(base::Code::not_found, "\"{}\" is not PostgreSQL: it says \"{}\"",
               (bin / "postgres").string(), answer.substr(0, answer.find('\n')));
  }
  return installation;
}

std::optional<Installation> find_installation(std::optional<int> major) {
  std::vector<base::fs::path> candidates;
  add_colon_list(environment("HOLDFAST_PG_BIN"), candidates);
  add_packaged(candidates);
  add_path(candidates);
  std::optional<Installation> best;
  for (const base::fs::path& bin : candidates) {
    if (!is_program(bin / "postgres")) continue;
    try {
      Installation found = installation_in(bin);
      if (major && found.major == *major) return found;
      if (!major && (!best || found.major > best->major)) best = std::move(found);
    } catch (const base::Error&) {
      // Something else of that name, or a broken installation: there may be better ones.
    }
  }
  return best;
}

std::optional<base::User> server_user() {
  if (!base::running_as_root()) return std::nullopt;
  const std::array<std::optional<std::string>, 3> names{"postgres", environment("SUDO_USER"),
                                                        "nobody"};
  for (const auto& name : names) {
    const auto user = name ? base::find_user(*name) : std::nullopt;
    if (user && user->uid != 0) return user;
  }
  throw base::Error(base::Code::not_found,
                    "PostgreSQL does not run as root, and no other user was found",
                    "create a user \"postgres\", or run this as an ordinary user");
}

void make_cluster(const Installation& installation, const base::fs::path& data_directory,
                  const InitOptions& options) {
  const std::optional<base::User> user = server_user();
  base::make_directories(data_directory, 0700);
  give_to(data_directory, user);
  base::Command command;
  command.argv = {(installation.bin / "initdb").string(),
                  "-D",
                  base::fs::absolute(data_directory).string(),
                  "--no-sync",
                  "--auth=trust",
                  "--username=postgres",
                  "--encoding=UTF8",
                  "--locale=C",
                  fmt::format("--wal-segsize={}", options.wal_segment_bytes >> 20)};
  if (options.checksums) command.argv.emplace_back("--data-checksums");
  if (!options.checksums && installation.major >= 18) {
    command.argv.emplace_back("--no-data-checksums");  // from 18 on they are the default
  }
  command.directory = "/";  // ours may be closed to that user
  command.user = user;
  const base::Outcome outcome = base::run(command);
  if (outcome.status == 0) return;
  throw base::Error(base::Code::postgres,
                    fmt::format("could not make a cluster in \"{}\": {}", data_directory.string(),
                                outcome.errors.empty() ? outcome.output : outcome.errors),
                    user ? fmt::format("user {} must be able to reach that directory", user->name)
                         : std::string());
}

Server::Server(const Installation& installation, const base::fs::path& data_directory,
               const Settings& settings, std::chrono::seconds limit)
    : Server(installation, data_directory, [&] {
        ServerOptions options;
        options.settings = settings;
        options.limit = limit;
        return options;
      }()) {}

Server::Server(const Installation& installation, const base::fs::path& data_directory,
               const ServerOptions& options)
    : installation_(installation), data_directory_(data_directory), superuser_(options.superuser) {
  const std::optional<base::User> user = options.user ? options.user : server_user();
  socket_.emplace("holdfast-pg", options.socket_parent);
  give_to(socket_->path(), user);
  log_ = options.log.empty() ? socket_->path() / "server.log" : options.log;
  base::Command command;
  command.argv = {(installation.bin / "postgres").string(), "-D",
                  base::fs::absolute(data_directory).string()};
  const auto set = [&](std::string_view name, std::string_view value) {
    command.argv.insert(command.argv.end(), {"-c", fmt::format("{}={}", name, value)});
  };
  for (const auto& [name, value] : options.settings) set(name, value);
  set("data_directory", base::fs::absolute(data_directory).string());
  set("listen_addresses", "");
  set("unix_socket_directories", socket_->path().string());
  set("port", std::to_string(port_));
  set("logging_collector", "off");  // what it says belongs into log_, where we look for it
  set("log_destination", "stderr");
  if (options.trust_socket) {
    const auto write = [&](const std::string& name, std::string_view content) {
      const base::fs::path file = socket_->path() / (name + ".conf");
      base::replace_file(file, base::view(content));
      give_to(file, user);
      set(name, file.string());
    };
    write("hba_file", "local all all trust\nlocal replication all reject\n");
    write("ident_file", "");
  }
  command.directory = "/";
  command.user = user;
  if (options.ends_with_us) command.signal_when_orphaned = SIGQUIT;
  if (options.caged_to) {
    std::vector<base::fs::path> writable = *options.caged_to;
    writable.insert(writable.end(), {data_directory, socket_->path()});
    child_.emplace(command, log_, base::Cage(writable, options.connections));
  } else {
    child_.emplace(command, log_);
  }
  try {
    await_connections(options.limit);
  } catch (...) {
    stop_quietly();
    throw;
  }
}

Server::~Server() {
  stop_quietly();
}

void Server::fail_with_log(std::string_view why, base::Code code) {
  base::fail(code, "the server in \"{}\" {}; its log ends with:\n{}", data_directory_.string(), why,
             tail_of(log_));
}

void Server::poll(std::chrono::seconds limit, std::string_view awaited,
                  const std::function<bool()>& reached) {
  const auto begun = steady_clock::now();
  const auto end = begun + limit;
  for (;;) {
    if (const auto status = child_->finished()) {
      fail_with_log(fmt::format("ended with status {} before {}", *status, awaited));
    }
    try {
      if (reached()) return;
    } catch (const base::Error& error) {
      // A server that starts, or just left recovery, answers with errors for a while.
      if (error.code() != base::Code::unreachable && error.code() != base::Code::postgres) throw;
    }
    if (steady_clock::now() >= end) {
      fail_with_log(fmt::format("did not get to {} within {} s", awaited, limit.count()),
                    base::Code::unreachable);
    }
    base::stop_if_interrupted();
    // It logs each question: hours of recovery are asked about less often.
    const auto waited = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begun);
    std::this_thread::sleep_for(std::min(poll_interval + waited / 50, milliseconds(500)));
  }
}

/// Whom it refuses, and for what, is for those to find out who ask: no waiting mends that.
void Server::await_connections(std::chrono::seconds limit) {
  poll(limit, "accepting connections", [this] { return accepts_connections(connection()); });
  prove_it_is_ours();
}

void Server::prove_it_is_ours() const {
  const base::fs::path path = socket_->path() / fmt::format(".s.PGSQL.{}", port_);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.native().copy(&address.sun_path[0], sizeof address.sun_path - 1);
  const base::Fd guest(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(guest.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    base::fail_errno(fmt::format("connect to \"{}\"", path.string()), errno);
  }
  ucred who{};
  socklen_t size = sizeof who;
  if (::getsockopt(guest.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) {
    base::fail_errno(fmt::format("find out who listens on \"{}\"", path.string()), errno);
  }
  if (who.pid == child_->pid()) return;
  base::fail(base::Code::refused,
             "cannot work with who answers on \"{}\": it is process {}, and the server that was "
             "started is {}",
             path.string(), who.pid, child_->pid());
}

void Server::await_recovery_end(std::chrono::seconds limit) {
  std::optional<Session> session;
  poll(limit, "the end of recovery", [&] {
    if (!session || !session->alive()) session.emplace(connection());
    return recovery_is_over(*session);
  });
}

std::string Server::connection(std::string_view database, std::string_view user) const {
  return fmt::format("host={} port={} user={} dbname={} gssencmode=disable",
                     quote_connection_value(socket_->path().string()), port_,
                     quote_connection_value(user.empty() ? superuser_ : user),
                     quote_connection_value(database));
}

const base::fs::path& Server::socket_directory() const {
  return socket_->path();
}

bool Server::running() {
  return child_ && !child_->finished();
}

pid_t Server::pid() const {
  return child_->pid();
}

void Server::stop(StopMode mode) {
  if (!running()) return;
  child_->signal(mode == StopMode::smart ? SIGTERM : mode == StopMode::fast ? SIGINT : SIGQUIT);
  constexpr std::chrono::minutes limit(10);
  if (!child_->wait_for(limit)) fail_with_log("does not stop");
}

void Server::kill() {
  if (!running()) return;
  // Held still, it can neither notice nor replace what is killed.
  child_->signal(SIGSTOP);
  const std::vector<pid_t> children = children_of(child_->pid());
  for (const pid_t child : children) ::kill(child, SIGKILL);
  child_->signal(SIGKILL);
  child_->wait();
  const auto end = steady_clock::now() + std::chrono::seconds(10);
  while (!std::all_of(children.begin(), children.end(), is_gone) && steady_clock::now() < end) {
    std::this_thread::sleep_for(poll_interval);
  }
}

void Server::stop_quietly() {
  try {
    if (!running()) return;
    child_->signal(SIGQUIT);
    if (!child_->wait_for(std::chrono::seconds(10))) kill();
  } catch (const std::exception&) {
    // Nobody is left to tell.
  }
}

}  // namespace holdfast::postgres
