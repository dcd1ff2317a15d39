#pragma once

// Running a PostgreSQL server of our own: for drills, the demo and tests.
//
// PostgreSQL refuses to run as root, so a server needs an ordinary user; as root we become one.
// Each server listens on a Unix socket in a private directory and nowhere else.

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/cage.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "postgres/recovery_settings.h"

namespace holdfast::postgres {

/// The programs of one PostgreSQL version: initdb, pg_ctl, postgres and, where installed, the
/// others.
struct Installation {
  base::fs::path bin;
  int major = 0;
  /// The path of a program, or nullopt if this installation lacks it.
  std::optional<base::fs::path> program(std::string_view name) const;
};
/// The installation in `bin`; asks its postgres for the version. Throws Error(not_found).
Installation installation_in(const base::fs::path& bin);
/// Looks for PostgreSQL `major` (or the newest, if none is given): in HOLDFAST_PG_BIN (a list of
/// directories separated by colons), in /usr/lib/postgresql/MAJOR/bin, /usr/pgsql-MAJOR/bin and
/// PATH.
std::optional<Installation> find_installation(std::optional<int> major = {});

/// Whom to run a server as: us, or if we are root the user "postgres", or the first of
/// SUDO_USER and "nobody" that exists.
std::optional<base::User> server_user();

/// Makes a new cluster: initdb with trust authentication on sockets, superuser "postgres".
struct InitOptions {
  bool checksums = true;
  std::uint64_t wal_segment_bytes = 16 << 20;
};
void make_cluster(const Installation& installation, const base::fs::path& data_directory,
                  const InitOptions& options = {});

/// How to start a server, where that differs from what tests and the demo want.
struct ServerOptions {
  explicit ServerOptions() = default;  // a list in braces means settings
  Settings settings;
  std::chrono::seconds limit{120};
  std::optional<base::User> user;      ///< whom to run it as; nullopt: server_user()
  std::string superuser = "postgres";  ///< who connection() is
  /// The socket's directory is made below it. A socket's whole path has at most 107 bytes.
  base::fs::path socket_parent = "/tmp";
  base::fs::path log;  ///< empty: in the socket directory, gone with the server
  /// Only who can enter the socket directory gets in, and whatever the cluster says of it.
  bool trust_socket = false;
  /// Ends when the thread that started it ends, even by kill -9.
  bool ends_with_us = false;
  /// Locked into a cage (base/cage.h): it writes to its data directory, the socket's directory and
  /// these, which are there, and to nothing else.
  std::optional<std::vector<base::fs::path>> caged_to;
  base::Cage::Connections connections = base::Cage::Connections::none;
};

/// A running server; the destructor stops it at once.
class Server {
 public:
  /// Starts `data_directory`, whatever the configuration in it calls its data directory. `settings`
  /// are given as -c options and so win over all files; socket directory, listen_addresses = '',
  /// port and the log's destination are set here. Returns when it accepts connections, or throws
  /// Error(postgres) with the end of its log: when it exits, or does not get there within `limit`.
  /// It is this server that answers, by the kernel's word, or Error(refused) is thrown.
  Server(const Installation& installation, const base::fs::path& data_directory,
         const Settings& settings = {}, std::chrono::seconds limit = std::chrono::seconds(120));
  Server(const Installation& installation, const base::fs::path& data_directory,
         const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const base::fs::path& data_directory() const { return data_directory_; }
  /// A libpq connection string for the superuser, or another user, on a database.
  std::string connection(std::string_view database = "postgres", std::string_view user = {}) const;
  const base::fs::path& socket_directory() const;
  int port() const { return port_; }
  const base::fs::path& log_file() const { return log_; }
  bool running();
  pid_t pid() const;
  /// pg_ctl stop -m fast, immediate or smart: SIGINT, SIGQUIT or SIGTERM; waits for the end.
  enum class StopMode { smart, fast, immediate };
  void stop(StopMode mode = StopMode::fast);
  /// kill -9 to the postmaster and its children, as if the machine had died (but for the page
  /// cache).
  void kill();
  /// Waits until pg_is_in_recovery() is false or replay is paused; throws after `limit` or if the
  /// server dies.
  void await_recovery_end(std::chrono::seconds limit);

 private:
  void poll(std::chrono::seconds limit, std::string_view awaited,
            const std::function<bool()>& reached);
  void await_connections(std::chrono::seconds limit);
  void prove_it_is_ours() const;
  [[noreturn]] void fail_with_log(std::string_view why, base::Code code = base::Code::postgres);
  void stop_quietly();
  Installation installation_;
  base::fs::path data_directory_;
  std::optional<base::TemporaryDirectory> socket_;
  base::fs::path log_;
  int port_ = 5432;
  std::string superuser_;
  std::optional<base::Child> child_;
};

}  // namespace holdfast::postgres
