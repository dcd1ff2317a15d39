#pragma once

// One connection to a server (libpq), and the low-level backup functions on it.
//
// Every failure is Error(postgres) with the server's own message, or Error(unreachable) when the
// connection cannot be made or is lost. Not for several threads.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "postgres/control_file.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

/// The rows of a result; nullopt is SQL NULL.
using Row = std::vector<std::optional<std::string>>;
using Rows = std::vector<Row>;

class Session {
 public:
  /// Connects with a libpq connection string (application_name = "holdfast" unless it sets one;
  /// connect_timeout 10 unless it sets one). Sets statement_timeout and idle timeouts to 0,
  /// client_encoding UTF8, DateStyle ISO, extra_float_digits default, search_path pg_catalog.
  /// A `database` wins over the one that the string names.
  explicit Session(const std::string& connection, const std::string& database = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Runs one statement; parameters are passed as text, apart from it.
  Rows query(const std::string& sql, const std::vector<std::string>& parameters = {});
  /// Runs several statements, separated by semicolons.
  void run_script(const std::string& sql);
  /// The one value of a statement that yields one row with one column which is not NULL.
  std::string value(const std::string& sql, const std::vector<std::string>& parameters = {});
  /// SHOW name; nullopt if the server has no such setting.
  std::optional<std::string> setting(std::string_view name);

  int version_number();  ///< 150020
  int major_version() { return version_number() / 10000; }
  bool in_recovery();
  SystemId system_id();     ///< pg_control_system()
  base::Timestamp clock();  ///< the server's clock
  Timeline timeline();      ///< of the last checkpoint, pg_control_checkpoint()
  /// Where a primary writes, or a standby has replayed to.
  Lsn current_lsn();
  /// Still usable? Asks the server.
  bool alive();

  struct BackupStart {
    Lsn lsn;
  };
  struct BackupStop {
    Lsn lsn;
    std::string label_file;      ///< for "backup_label", byte for byte
    std::string tablespace_map;  ///< for "tablespace_map"; empty if there are no tablespaces
  };
  /// pg_backup_start, or pg_start_backup up to 14 (never exclusive). The session must stay open.
  BackupStart start_backup(const std::string& label, bool fast_checkpoint);
  /// Ends the backup; does not wait for archiving (the caller sees to the WAL itself).
  BackupStop stop_backup();

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

/// Does any server answer where this connection string leads, be it with a refusal? Waits for 5
/// seconds at most for each address.
bool somebody_answers(const std::string& connection);
/// The same, and it has started: what it refuses now it refuses for another reason.
bool accepts_connections(const std::string& connection);

}  // namespace holdfast::postgres
