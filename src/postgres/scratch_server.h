#pragma once

// A server on a restored data directory that nobody else notices: for drills and for taking
// something out of a backup.
//
// What is promised of it (the sandbox):
// - it listens on a Unix socket in a directory that only its user and we can enter, and asks nobody
//   for a password there; the cluster's own pg_hba.conf and TLS settings do not matter;
// - it archives nothing, receives nothing from a primary or a publisher, runs no autovacuum and no
//   background jobs of extensions, and fires no login triggers;
// - libraries that the source preloaded are left out where they are not installed here, or where
//   they are known to start jobs;
// - settings outside of the data directory are read, at most, and nothing there is written;
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
  /// The name of a superuser of the cluster.
  std::string superuser = "postgres";
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

  const Recovered& recovered() const { return recovered_; }
  /// Preloaded libraries of the source that it runs without.
  const std::vector<std::string>& left_out() const { return left_out_; }
  int major() const { return installation_.major; }
  std::string connection(std::string_view database = "postgres") const;
  /// The same as a URL: postgresql:///app?host=/tmp/...
  std::string url(std::string_view database) const;
  Session session(std::string_view database = "postgres") const;
  pid_t pid() const { return server_->pid(); }
  bool running() { return server_->running(); }
  /// The socket directory goes as well.
  void stop(Server::StopMode mode = Server::StopMode::immediate);

 private:
  void start(const ScratchOptions& options);
  void ask_how_far();

  base::fs::path data_directory_;
  Installation installation_;
  std::string superuser_;
  std::vector<std::string> libraries_;
  std::vector<std::string> left_out_;
  std::optional<Server> server_;
  Recovered recovered_;
};

/// What `shared_preload_libraries` names: "a, \"b c\"" is a and b c.
std::vector<std::string> preload_list(std::string_view setting);

}  // namespace holdfast::postgres
