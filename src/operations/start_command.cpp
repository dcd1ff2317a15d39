#include "operations/start_command.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <vector>

#include "operations/recovery_files.h"
#include "operations/server_configuration.h"
#include "postgres/data_directory.h"
#include "postgres/scratch_server.h"
#include "postgres/server.h"

namespace holdfast::operations {

namespace {

constexpr int highest_port = 65535;

/// Does anybody listen there, or has a socket file by which the server would refuse to start?
bool is_taken(int port, const std::vector<std::string>& socket_directories) {
  for (const std::string& each : socket_directories) {
    const base::fs::path lock = base::fs::path(each) / fmt::format(".s.PGSQL.{}.lock", port);
    if (base::status_of(lock)) return true;
  }
  const base::Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0;
}

std::string for_shell(const std::string& text) {
  if (shell_quoted(text) == text) return text;
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace

std::string start_command(const base::fs::path& directory) {
  ConfigurationOnDisk disk;
  ConfigurationRoots roots;
  roots.data_directory = directory.string();
  const ServerConfiguration configuration = read_server_configuration(disk, roots);
  std::string line;
  const auto status = base::status_of(directory);
  if (base::running_as_root() && status && status->st_uid != 0) {
    if (const auto owner = base::find_user(status->st_uid)) {
      line += fmt::format("runuser -u {} -- ", for_shell(owner->name));
    }
  }
  const auto installation = postgres::find_installation(postgres::major_version(directory));
  const auto program = installation ? installation->program("pg_ctl") : std::nullopt;
  line +=
      fmt::format("{} -D {} -l {}", for_shell(program ? program->string() : "pg_ctl"),
                  for_shell(directory.string()), for_shell((directory / "server.log").string()));
  const std::vector<std::string> socket_directories =
      postgres::preload_list(configuration.setting("unix_socket_directories"));
  // Unset, it is as PostgreSQL was built.
  static const std::vector<std::string> usual = {"/var/run/postgresql", "/tmp"};
  const auto& looked_at = socket_directories.empty() ? usual : socket_directories;
  int port = 5432;
  const std::string set = configuration.setting("port", "5432");
  std::from_chars(set.data(), set.data() + set.size(), port);
  std::string options;
  const int before = port;
  while (port < highest_port && is_taken(port, looked_at)) ++port;
  if (port != before) options += fmt::format("-p {}", port);
  for (const std::string& each : socket_directories) {
    if (each.starts_with('@') || base::status_of(each)) continue;
    // It does not exist here, so the server would not start.
    options += fmt::format("{}-k {}", options.empty() ? "" : " ", for_shell(directory.string()));
    break;
  }
  if (!options.empty()) line += " -o " + for_shell(options);
  return line + " start";
}

}  // namespace holdfast::operations
