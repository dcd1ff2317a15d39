#pragma once

// holdfast.toml: what a user tells Holdfast about clusters and repositories.
//
// Every key that is understood does something; every other key is an error with its line (TRAPS
// CC10, CC11). Secrets are not in it: it names a key file or a command that prints the key.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/time.h"
#include "operations/keep_rules.h"
#include "operations/recover_settings.h"
#include "operations/secrets_configuration.h"
#include "operations/serve_settings.h"
#include "repository/keys.h"
#include "service/probe.h"

namespace holdfast::operations {

struct ClusterConfiguration {
  std::string name;
  std::string connection;  ///< libpq connection string
  /// Empty: nothing is read from the server's disk; `connection` must allow replication.
  base::fs::path data_directory;
};

struct RepositoryConfiguration {
  std::string name;
  std::string url;
  repository::KeySource key;
  bool encrypted = true;  ///< false only if the file says encryption = "none"
};

/// [objectives]: what is promised, for `status` to hold against what is measured.
struct Objectives {
  std::optional<base::Microseconds> rpo;  ///< how much work may be lost, as a time
  std::optional<base::Microseconds> rto;  ///< how long recovery may take
  /// How old the last drill that passed may be; nullopt: drill_every = "off".
  std::optional<base::Microseconds> drill_every = std::chrono::days(90);
  double uptime = 0.995;  ///< the share of each month in which probes find things well
};

/// [[drill.check]]: a statement of the user's that a restored cluster must answer as it should.
struct DrillAssertion {
  std::string name;
  std::string database;
  std::string sql;
  std::string expect;  ///< the one value that it yields, as text
};

/// [drill]: how `drill` does its work, and where its evidence goes.
struct DrillConfiguration {
  base::fs::path evidence;     ///< the directory of records
  base::fs::path signing_key;  ///< made by the first drill
  base::fs::path directory;    ///< clusters are restored below it
  std::string heartbeat;       ///< "database.schema.table"; empty: none
  bool amcheck = true;         ///< false only if the file says amcheck = "off"
  std::string api;             ///< a command that serves the restored cluster; empty: none
  std::string api_database = "postgres";
  std::string ready;  ///< the URL that must answer 200
  base::Microseconds ready_within = std::chrono::seconds(60);
  std::vector<DrillAssertion> assertions;
};

/// [wal]: how `wal receive` does its work.
struct WalConfiguration {
  std::string slot = "holdfast";                                      ///< the replication slot
  std::chrono::microseconds slice_interval{std::chrono::seconds(1)};  ///< what may be lost
  /// `wal push` ends well when a file is durable in so many repositories; the others get it later.
  std::uint32_t copies = 1;
};

/// [files.NAME]: what goes along with each backup (files.h).
struct FilesConfiguration {
  std::string name;
  base::fs::path path;  ///< absolute
  base::Microseconds keep = std::chrono::days(7);
};

struct Configuration {
  base::fs::path path;  ///< absolute
  std::vector<ClusterConfiguration> clusters;
  std::vector<RepositoryConfiguration> repositories;
  KeepRules keep;  ///< no [keep]: nothing is ever expired
  Objectives objectives;
  WalConfiguration wal;
  DrillConfiguration drill;
  SecretsConfiguration secrets;
  RecoverSettings recover;
  std::vector<service::ProbeSettings> probes;
  std::vector<FilesConfiguration> files;
  base::fs::path probe_history;  ///< [history] file
  ScheduleSettings schedule;
  AlertSettings alert;
  ServeSettings serve;
  /// Of several repositories those that answered: recovery asks these, and waits for no other.
  std::vector<std::string> reachable;

  /// The cluster of that name, or the only one if `name` is empty.
  const ClusterConfiguration& cluster(const std::string& name) const;
  const RepositoryConfiguration& repository() const;
};

/// The file to use: `given`, else $HOLDFAST_CONFIG, ./holdfast.toml, /etc/holdfast/holdfast.toml.
/// Throws Error(configuration) if none of these exists.
base::fs::path find_configuration(const std::string& given);

/// Reads and checks a file. The passphrase of a repository without key_file and key_command is
/// taken from $HOLDFAST_PASSPHRASE.
Configuration read_configuration(const base::fs::path& path);
Configuration parse_configuration(std::string_view text, const base::fs::path& path);

/// The [keep] that `init` writes into a new file.
extern const std::string_view default_keep;

/// The text of a new file, without [keep].
std::string write_configuration(const ClusterConfiguration& cluster,
                                const RepositoryConfiguration& repository);

}  // namespace holdfast::operations
