#include "operations/recovery_start.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "operations/instant_mount.h"
#include "postgres/data_directory.h"
#include "postgres/server.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::uint64_t size_of(const path& file) {
  const auto status = base::status_of(file);
  return status ? static_cast<std::uint64_t>(status->st_size) : 0;
}

std::optional<base::User> owner_of(const path& directory) {
  const auto status = base::running_as_root() ? base::status_of(directory) : std::nullopt;
  return status ? base::find_user(status->st_uid) : std::nullopt;
}

bool works_in(std::string_view pid, const path& directory) {
  std::error_code failed;
  return base::fs::read_symlink(path("/proc") / pid / "cwd", failed) == directory;
}

/// "postgres -D DIR" or "pg_ctl -D DIR" before it has come to work there.
bool is_on_its_way(std::string_view pid, const path& directory) {
  const auto bytes = base::read_file(path("/proc") / pid / "cmdline");
  if (!bytes) return false;
  std::vector<std::string> words;
  std::istringstream stream{std::string(base::text(*bytes))};
  for (std::string word; std::getline(stream, word, '\0');) words.push_back(word);
  if (words.empty()) return false;
  const std::string program = path(words.front()).filename();
  if (program != "postgres" && program != "pg_ctl") return false;
  const auto option = std::ranges::find(words, "-D");
  return option != words.end() && option + 1 != words.end() && *(option + 1) == directory;
}

/// A postmaster, its children, and what is about to become one.
bool somebody_works_in(const path& data_directory) {
  std::error_code failed;
  const path directory = base::fs::canonical(data_directory, failed);
  if (failed) return false;
  const auto all = base::directory_names("/proc").value_or(std::vector<std::string>{});
  return std::ranges::any_of(all, [&](const std::string& name) {
    if (name.find_first_not_of("0123456789") != std::string::npos) return false;
    if (is_on_its_way(name, directory)) return true;
    // Ours is in many places, and a shell of the user's may be there.
    const auto comm = base::read_file(path("/proc") / name / "comm");
    return comm && base::text(*comm).starts_with("postgres") && works_in(name, directory);
  });
}

/// A server runs there, and takes connections: its last line says so.
bool is_up(const path& directory) {
  if (!server_process(directory)) return false;
  const auto bytes = base::read_file(directory / "postmaster.pid");
  const auto lines = bytes ? lines_of(base::text(*bytes)) : std::vector<std::string>{};
  return lines.size() > 7 && (lines[7].starts_with("ready") || lines[7].starts_with("standby"));
}

base::Command start_command(const path& directory, const std::optional<PackagedCluster>& packaged,
                            const path& log, std::chrono::seconds limit) {
  base::Command command;
  command.directory = "/";
  if (packaged) {
    command.argv = {"pg_ctlcluster", packaged->version, packaged->name, "start"};
    return command;
  }
  const int major = postgres::major_version(directory);
  const auto found = postgres::find_installation(major);
  const auto program = found ? found->program("pg_ctl") : std::nullopt;
  if (!program) {
    throw Error(Code::not_found, fmt::format("could not find pg_ctl of PostgreSQL {}", major),
                "install it, or say how the server is started: [recover.command] start = \"...\"");
  }
  command.argv = {program->string(),
                  "-D",
                  directory.string(),
                  "-s",
                  "-w",
                  "-t",
                  std::to_string(limit.count()),
                  "-l",
                  log.string(),
                  "start"};
  command.user = owner_of(directory);
  return command;
}

/// Of a line that postgres writes: PROGRAM "-D" "/data" "-p" "5499"
std::vector<std::string> quoted_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') {
      if (quoted) words.push_back(std::exchange(word, {}));
      quoted = !quoted;
    } else if (quoted) {
      word += c;
    }
  }
  return words;
}

/// What the configuration alone says; nullopt if it cannot be read from here.
std::optional<std::string> configured(const path& data_directory, const std::string& name) {
  const auto found = postgres::find_installation(postgres::major_version(data_directory));
  const auto program = found ? found->program("postgres") : std::nullopt;
  if (!program) return std::nullopt;
  base::Command command;
  command.argv = {program->string(), "-D", data_directory.string(), "-C", name};
  command.directory = "/";
  command.user = owner_of(data_directory);
  const base::Outcome outcome = base::run(command);
  if (outcome.status != 0) return std::nullopt;
  return outcome.output.substr(0, outcome.output.find('\n'));
}

}  // namespace

void mount_if_instant(const path& directory) {
  const InstantPlace instant = instant_place(directory);
  if (read_instant(instant) && !serving_process(instant)) start_mount_process(instant);
}

std::optional<PackagedCluster> packaged_cluster(const path& data_directory) {
  if (::access("/usr/bin/pg_ctlcluster", X_OK) != 0) return std::nullopt;
  base::Command command;
  command.argv = {"pg_lsclusters", "--no-header"};
  command.directory = "/";
  const base::Outcome outcome = base::run(command);
  if (outcome.status != 0) return std::nullopt;
  for (const std::string& line : lines_of(outcome.output)) {
    // Version, name, port, status, owner, directory, log.
    const auto words = words_of(line);
    if (words.size() != 7) continue;
    std::error_code failed;
    if (base::fs::weakly_canonical(words[5], failed) !=
        base::fs::weakly_canonical(data_directory, failed)) {
      continue;
    }
    return PackagedCluster{words[0], words[1], words[6]};
  }
  return std::nullopt;
}

std::optional<pid_t> server_process(const path& data_directory) {
  const auto bytes = base::read_file(data_directory / "postmaster.pid");
  if (!bytes) return std::nullopt;
  const std::string_view text = base::text(*bytes);
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  if (pid <= 1) return std::nullopt;
  // After a crash the number may be another's: a postmaster works in its data directory.
  std::error_code failed;
  const path directory = base::fs::canonical(data_directory, failed);
  if (failed || !works_in(std::to_string(pid), directory)) return std::nullopt;
  return pid;
}

void start_server(const RecoveryContext& context, const path& directory, base::Microseconds limit) {
  // Somebody who died may have begun to start it, or what he ended may still be ending.
  await_step(limit / 2, [&] { return is_up(directory) || !somebody_works_in(directory); });
  if (server_process(directory)) return;
  mount_if_instant(directory);
  if (const auto line = context.settings().command(RecoveryStep::start)) {
    return run_user_command(context, name_of(RecoveryStep::start), *line, limit);
  }
  const auto packaged = packaged_cluster(directory);
  const path log = packaged ? packaged->log : directory / "holdfast-server.log";
  const std::uint64_t before = size_of(log);
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(limit);
  const service::Deployment done =
      service::deploy(start_command(directory, packaged, log, seconds), limit, {});
  if (done.ok()) return;
  const auto said = lines_of(done.output);
  const std::string words = last_words(log, before);
  throw Error(Code::postgres,
              fmt::format("could not start the server in \"{}\": {}{}", directory.string(),
                          done.timed_out ? "it did not come up in time"
                          : said.empty() ? "nothing was said"
                                         : said.back(),
                          words.empty() ? "" : "; its log ends with: " + words),
              fmt::format("its log is {}", log.string()));
}

void stop_server(const path& data_directory, base::Microseconds limit) {
  if (const auto pid = server_process(data_directory)) {
    if (const auto packaged = packaged_cluster(data_directory)) {
      base::Command command;
      command.argv = {"pg_ctlcluster", packaged->version, packaged->name, "stop", "-m", "fast"};
      command.directory = "/";
      service::deploy(command, limit / 3, {});
    }
  }
  for (const auto& [number, share] :
       {std::pair(SIGINT, limit / 3), std::pair(SIGQUIT, limit / 3)}) {
    const auto is_over = [&, signal = number] {
      // Again and again: it may only just be coming up.
      const auto pid = server_process(data_directory);
      if (pid && ::kill(*pid, signal) != 0 && errno != ESRCH) {
        base::fail_errno(fmt::format("stop the server in \"{}\"", data_directory.string()), errno);
      }
      return !somebody_works_in(data_directory);
    };
    if (await_step(share, is_over)) return;
  }
  throw Error(Code::busy,
              fmt::format("the server in \"{}\" does not stop", data_directory.string()),
              "look at its log; kill it by hand");
}

std::vector<std::string> settings_of_command_line_alone(const path& data_directory) {
  const auto bytes = base::read_file(data_directory / "postmaster.opts");
  if (!bytes) return {};
  std::vector<std::pair<std::string, std::string>> given;
  const auto words = quoted_words(base::text(*bytes));
  const auto take = [&](const std::string& pair) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) return;
    std::string name = pair.substr(0, equals);
    std::ranges::replace(name, '-', '_');
    given.emplace_back(name, pair.substr(equals + 1));
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const std::string next = i + 1 < words.size() ? words[i + 1] : "";
    if (word == "-p") given.emplace_back("port", next);
    if (word == "-k") given.emplace_back("unix_socket_directories", next);
    if (word == "-h") given.emplace_back("listen_addresses", next);
    if (word == "-c") take(next);
    if (word.starts_with("--")) take(word.substr(2));
  }
  std::vector<std::string> alone;
  for (const auto& [name, value] : given) {
    if (name != "port" && name != "unix_socket_directories" && name != "listen_addresses") continue;
    const auto otherwise = configured(data_directory, name);
    if (otherwise && *otherwise != value) alone.push_back(fmt::format("{} = \"{}\"", name, value));
  }
  return alone;
}

std::string port_of(const path& data_directory) {
  const auto bytes = base::read_file(data_directory / "postmaster.pid");
  if (!bytes) return {};
  // Process, directory, start, port.
  const auto lines = lines_of(base::text(*bytes));
  return lines.size() > 3 ? lines[3] : "";
}

std::string last_words(const path& log, std::uint64_t offset) {
  constexpr std::uint64_t length = 600;
  const std::uint64_t size = size_of(log);
  if (size <= offset) return {};
  const auto file = base::open_if_exists(log, 0);
  if (!file) return {};
  const std::uint64_t from = std::max(offset, size - std::min(size, length));
  base::Bytes bytes(size - from);
  bytes.resize(base::read_at(*file, bytes, from, log));
  std::string text(base::text(bytes));
  if (from > offset) text.erase(0, std::min(text.find('\n'), text.size() - 1) + 1);
  while (text.ends_with('\n')) text.pop_back();
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace holdfast::operations
