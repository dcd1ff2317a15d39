#pragma once

// A server on a restored data directory that nobody else notices: for drills and for taking
// something out of a backup.
//
// What is promised of it (the sandbox):
// - it and all that it starts write below its data directory, its tablespaces and its socket's
//   directory only, and connect to nothing, as far as the kernel can hold them back
//   (base/cage.h; cage_gaps() says what this one cannot);
// - settings that name a place, a process, a network, a command, a library or a target are ours
//   (scratch_settings.h), whatever the cluster's files say;
// - who answers is the process that was started, on that directory, of that system: else it is
//   stopped before it is asked anything;
// - it listens on a Unix socket in a directory that only its user and we can enter, and asks nobody
//   for a password there; the cluster's own pg_hba.conf and TLS settings do not matter;
// - it archives nothing, receives nothing from a primary or a publisher, runs no autovacuum and no
//   background jobs of extensions, and fires no login triggers;
// - libraries that the source preloaded are left out where they are not installed here, or where
//   they are known to start jobs;
// - no name is assumed: it is found out who may come in, and where (a role is made if nobody may
//   and the cluster is to be thrown away); settings of roles and databases do not bend what is
//   asked. What it refuses for good ends at once;
// - as root it runs as the owner of the data directory;
// - it does not outlive us: not an exception, not kill -9. That rests on the thread that made it.
// It is not durable (fsync is off), as it is thrown away, unless it is to stay.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "postgres/lsn.h"
#include "postgres/server.h"
#include "postgres/session.h"

namespace holdfast::postgres {

struct ScratchOptions {
  /// A superuser of the cluster, as far as is known.
  std::string superuser = "postgres";
  std::string system;  ///< of which the cluster must be
  /// Directories besides the data directory that it writes to: its tablespaces.
  std::vector<base::fs::path> writable;
  /// For a restore_command that cannot do without.
  base::Cage::Connections connections = base::Cage::Connections::none;
  /// The socket's directory is made in it; in /tmp if it is empty, or its name too long.
  base::fs::path place;
  base::fs::path log;  ///< what the server says; stays when the server is gone
  /// For the whole of recovery. Beyond it: Error(unreachable), as nothing is proven by it.
  std::chrono::seconds limit = std::chrono::hours(4);
  bool durable = false;
};

/// How far recovery came.
struct Recovered {
  /// The end of the last record that was replayed. Of a cluster that needed no recovery: where it
  /// is.
  Lsn replayed;
  Timeline timeline;
  std::optional<base::Timestamp> last_commit;  ///< of those that were replayed
};

class ScratchServer {
 public:
  /// Finds PostgreSQL of the directory's version, starts it, and returns when it has recovered to
  /// its target, been promoted and answers. Throws Error(not_found) with the way out if there is no
  /// such PostgreSQL here, Error(postgres) with the end of its log if recovery fails.
  ScratchServer(const base::fs::path& data_directory, const ScratchOptions& options);
  ~ScratchServer();
  ScratchServer(const ScratchServer&) = delete;
  ScratchServer& operator=(const ScratchServer&) = delete;

  const Recovered& recovered() const { return recovered_; }
  /// Preloaded libraries of the source that it runs without.
  const std::vector<std::string>& left_out() const { return left_out_; }
  int major() const { return installation_.major; }
  /// Without a name: a database that is there.
  std::string connection(std::string_view database = {}) const;
  /// The same as a URL: postgresql:///app?host=/tmp/...
  std::string url(std::string_view database) const;
  Session session(std::string_view database = {}) const;
  pid_t pid() const { return server_->pid(); }
  bool running() { return server_->running(); }
  /// And all that it left running. The socket directory goes as well.
  void stop(Server::StopMode mode = Server::StopMode::immediate);

 private:
  void start(const ScratchOptions& options);
  void start_without_missing_libraries(ServerOptions& how);
  std::string configured(const std::string& setting, const ServerOptions& how) const;
  void come_in(const ScratchOptions& options, ServerOptions& how);
  bool can_come_in(const std::string& superuser, const std::string& database);
  void make_superuser(const ServerOptions& how, const std::vector<std::string>& databases);
  void prove(const ScratchOptions& options);
  void ask_how_far(bool started_again);

  base::fs::path data_directory_;
  Installation installation_;
  std::string superuser_;
  std::string database_;
  std::string refused_;  ///< why nobody could come in so far
  std::vector<std::string> libraries_;
  std::vector<std::string> left_out_;
  std::optional<Server> server_;
  Recovered recovered_;
};

/// Lines of a log about what a server or its children tried, and were refused by the kernel.
std::vector<std::string> refusals_in(const base::fs::path& log);

/// So that statements of ours are not held up by triggers of the cluster, where a setting alone
/// does not see to it. For a cluster that is to be thrown away.
void silence_event_triggers(Session& session);

/// What `shared_preload_libraries` names: "a, \"b c\"" is a and b c.
std::vector<std::string> preload_list(std::string_view setting);

}  // namespace holdfast::postgres
