#pragma once

// What integration tests stand on: a place, real servers in it, and the real binary.
//
// Nothing here is a fake. Tests run as root (servers and holdfast then run as the user postgres) or
// as an ordinary user, several at a time, and leave nothing behind.

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/process.h"
#include "postgres/server.h"
#include "postgres/session.h"

namespace holdfast::tests {

namespace fs = std::filesystem;

/// The binary under test: $HOLDFAST_BIN, or the one that was built with the tests.
fs::path holdfast_binary();

/// PostgreSQL `major`; fails the test if it is not installed (scripts/build installs it).
postgres::Installation installation(int major);

/// A server on a data directory of its own, with some settings for quick tests (fsync off).
class Cluster {
 public:
  Cluster(const postgres::Installation& installation, const fs::path& data_directory,
          const postgres::InitOptions& options = {});

  const fs::path& data_directory() const { return data_directory_; }
  const postgres::Installation& installation() const { return installation_; }
  postgres::Server& server() { return *server_; }
  /// Starts it if it does not run. Settings as in postgres::Server.
  void start(const postgres::Settings& settings = {});
  void stop(postgres::Server::StopMode mode = postgres::Server::StopMode::fast);
  std::string connection(std::string_view database = "postgres") const;
  postgres::Session session(std::string_view database = "postgres") const;
  /// One statement; the first column of the first row, or "".
  std::string sql(const std::string& statement, std::string_view database = "postgres") const;

 private:
  postgres::Installation installation_;
  fs::path data_directory_;
  std::unique_ptr<postgres::Server> server_;
};

/// How a command ended.
struct Result {
  int status = 0;
  std::string output;
  std::string errors;
  nlohmann::json json() const { return nlohmann::json::parse(output); }
};

/// A port that nobody listened on just now.
int free_port();

/// Where tests have their places: HOLDFAST_TEST_DIRECTORY, or in memory if there is plenty (what a
/// disk loses is tested with disks of the tests' own), or /var/tmp; long versions use the disk.
const fs::path& test_directory();

/// A scratch directory in memory, for files that are only looked at: the disk need not take them
/// durably. On the disk where memory is short.
class MemoryPlace {
 public:
  MemoryPlace();
  ~MemoryPlace();
  MemoryPlace(const MemoryPlace&) = delete;
  MemoryPlace& operator=(const MemoryPlace&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A scratch directory that servers may use, a repository in it and its configuration.
class Place {
 public:
  Place();
  ~Place();
  fs::path path(std::string_view name = "") const { return root_ / name; }
  fs::path repository() const { return path("repository"); }
  fs::path configuration() const { return path("holdfast.toml"); }

  /// Runs the binary with --config, as the user that servers run as, in the scratch directory.
  Result holdfast(const std::vector<std::string>& arguments,
                  const std::vector<std::pair<std::string, std::string>>& environment = {}) const;
  /// The same, and fails the test unless it ends with 0.
  Result must(const std::vector<std::string>& arguments) const;
  /// Makes a cluster with archiving into the repository, starts it, and runs `holdfast init` for
  /// it.
  std::unique_ptr<Cluster> cluster(int major = 15, const postgres::InitOptions& options = {},
                                   const std::vector<std::string>& init_arguments = {});
  /// Restores with these arguments (--to ...) into path(name) and starts it: recovery has ended
  /// when this returns.
  std::unique_ptr<Cluster> restored(const Cluster& source, std::string_view name,
                                    const std::vector<std::string>& arguments = {});
  /// Lets the current WAL segment be archived and waits until it is in the repository.
  void archive_all(Cluster& cluster) const;
  /// Gives a path to the user that servers run as.
  void give_to_server_user(const fs::path& path) const;

 private:
  fs::path root_;
};

/// An existing data directory as a Cluster (does not start it).
std::unique_ptr<Cluster> adopt(const postgres::Installation& installation,
                               const fs::path& directory);

/// Runs a program of an installation (pg_amcheck, pg_checksums, ...) as the server user.
Result run_tool(const postgres::Installation& installation, std::string_view program,
                const std::vector<std::string>& arguments);

/// For each table of each database: its row count and a digest of its content.
std::string digest(const Cluster& cluster);

}  // namespace holdfast::tests
