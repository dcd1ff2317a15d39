#pragma once

// [recover]: what `recover` must know of the service around the database.
//
// All of it is optional: a step about which nothing is said is skipped, and said to be. Any step
// can be a command of the user's.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/section.h"
#include "service/deployer.h"

namespace holdfast::operations {

/// The steps of a recovery, in their order. These names are in the configuration, in the journal
/// and in records.
enum class RecoveryStep {
  fence,        ///< nobody writes to the old cluster any more
  target,       ///< which backup, and to where
  provision,    ///< --full: the host; only by a command
  secrets,      ///< --full: the sealed bundle, opened into the environment file
  files,        ///< --full: what was taken along with the backup
  restore,      ///< files are there, or mounted
  replay,       ///< WAL replayed to the target, on a new timeline, closed to everybody
  prove,        ///< a drill's checks
  start,        ///< open for the service
  environment,  ///< DATABASE_URL
  deploy,       ///< the service is made anew
  ready,        ///< it says so
  proof,        ///< it works on the restored cluster, and on no other
  smoke,        ///< the gate
  reconnect,    ///< tunnel or load balancer
  backup,       ///< on the new timeline
};
constexpr std::size_t recovery_steps = 16;
std::string_view name_of(RecoveryStep step);
/// nullopt if no step is called that.
std::optional<RecoveryStep> recovery_step(std::string_view name);

/// [recover.cloudflare]: how the world comes to the service again. Each part is optional.
struct EdgeSettings {
  std::string api;            ///< empty: Cloudflare's own
  base::fs::path token_file;  ///< empty: $CLOUDFLARE_API_TOKEN
  std::string account;
  std::string tunnel;
  std::string connector;  ///< a command that starts cloudflared here; those before are evicted
  std::string hostname;   ///< of the tunnel's configuration, and where it shall lead
  std::string service;
  std::string zone;  ///< of the DNS record, and what it shall hold
  std::string record;
  std::string type = "CNAME";
  std::string content;
  std::string pool;  ///< of the load balancer, which origin, and its address
  std::string origin;
  std::string address;
};

struct RecoverSettings {
  base::fs::path state;      ///< the journals, one directory for each recovery
  base::fs::path directory;  ///< of the restored cluster; empty: where the old one was
  std::string connection;    ///< to it, once it is open; empty: as to the old one
  bool instant = false;
  /// Where the service finds it; empty: where it found the old one.
  std::string database_host;
  std::optional<std::uint16_t> database_port;
  base::fs::path environment_file;  ///< of the service; empty: none
  std::string variable = "DATABASE_URL";
  std::optional<service::ComposeService> compose;
  std::string unit;   ///< of systemd
  std::string ready;  ///< URL that must answer 200
  std::string
      proof;  ///< URL whose JSON tells the database's identity; empty: its sessions are seen
  base::fs::path smoke;  ///< a script for `holdfast smoke`, or for k6
  std::optional<EdgeSettings> edge;
  std::vector<std::pair<RecoveryStep, std::string>> commands;  ///< instead of the step
  std::vector<std::pair<RecoveryStep, std::string>> undo;      ///< what takes it back
  std::vector<std::pair<RecoveryStep, base::Microseconds>> limits;

  std::optional<std::string> command(RecoveryStep step) const;
  std::optional<std::string> undo_command(RecoveryStep step) const;
  base::Microseconds limit(RecoveryStep step) const;
};

/// Paths are relative to the configuration's own directory. nullptr: there is no [recover].
RecoverSettings read_recover(const base::TomlFile& file, const toml::table* table);

}  // namespace holdfast::operations
