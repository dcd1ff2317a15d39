#pragma once

// How servers on this machine are started and stopped: by the user's command, by the machine's own
// means (postgresql-common's pg_ctlcluster, which as root goes through systemd), else by pg_ctl.

#include <optional>
#include <string>
#include <vector>

#include "operations/recovery_context.h"

namespace holdfast::operations {

/// A cluster as postgresql-common (Debian, Ubuntu) keeps them: configured below /etc/postgresql.
struct PackagedCluster {
  std::string version;
  std::string name;
  base::fs::path log;
};
/// The one whose configuration names this data directory, which need not exist.
std::optional<PackagedCluster> packaged_cluster(const base::fs::path& data_directory);

/// An instant restore that is not mounted is: renaming one takes its mount down, and so does a
/// death.
void mount_if_instant(const base::fs::path& directory);

/// Starts whatever is in a directory, unless it runs. What an earlier try left on its way there is
/// waited for. Throws Error(postgres) with the last words of the server.
void start_server(const RecoveryContext& context, const base::fs::path& directory,
                  base::Microseconds limit);

/// By the machine's own means; else, and if that did not help, SIGINT (a fast shutdown), and
/// SIGQUIT if that takes too long. Returns when no process works in the directory any more. Throws
/// Error(busy) if the server does not end within the limit.
void stop_server(const base::fs::path& data_directory, base::Microseconds limit);

/// The process of the server that runs on a data directory: it is named there, and works there.
std::optional<pid_t> server_process(const base::fs::path& data_directory);

/// Port and addresses that a server was started with, and that its configuration does not say:
/// "port = 5499". Whoever starts it otherwise starts it without.
std::vector<std::string> settings_of_command_line_alone(const base::fs::path& data_directory);

/// The port of the server that runs on a data directory; empty if none does.
std::string port_of(const base::fs::path& data_directory);

/// The last lines of a log from `offset` on, on one; empty if there are none.
std::string last_words(const base::fs::path& log, std::uint64_t offset = 0);

}  // namespace holdfast::operations
