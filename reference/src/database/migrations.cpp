#include "database/migrations.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "database/connection.h"

namespace reference::database {

namespace {

namespace fs = std::filesystem;

constexpr const char* lock_number = "7163295";  // any, but always this one

struct Migration {
  int version = 0;
  std::string name;
  std::string sql;
  std::string checksum;
};

std::string sha256(const std::string& text) {
  std::array<unsigned char, 32> digest{};
  ::EVP_Digest(text.data(), text.size(), digest.data(), nullptr, ::EVP_sha256(), nullptr);
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

Migration read_migration(const fs::path& file) {
  Migration migration;
  migration.name = file.stem();
  if (migration.name.size() < 6 || migration.name[4] != '_' ||
      migration.name.find_first_not_of("0123456789") != 4) {
    throw std::runtime_error("cannot apply " + file.string() + ": not called NNNN_name.sql");
  }
  migration.version = std::stoi(migration.name.substr(0, 4));
  std::ostringstream text;
  std::ifstream input(file);
  if (!(text << input.rdbuf())) throw std::runtime_error("could not read " + file.string());
  migration.sql = text.str();
  migration.checksum = sha256(migration.sql);
  return migration;
}

std::vector<Migration> read_migrations(const fs::path& directory) {
  std::vector<Migration> all;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".sql") all.push_back(read_migration(entry.path()));
  }
  if (all.empty()) throw std::runtime_error("there are no migrations in " + directory.string());
  std::sort(all.begin(), all.end(),
            [](const auto& one, const auto& other) { return one.version < other.version; });
  for (std::size_t at = 1; at < all.size(); ++at) {
    if (all[at].version == all[at - 1].version) {
      throw std::runtime_error(
          fmt::format("cannot tell {} from {}", all[at - 1].name, all[at].name));
    }
  }
  return all;
}

/// Version and checksum of what has been applied.
std::map<int, std::string> applied(Connection& connection, const Deadline& deadline) {
  connection.run_script(
      "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, "
      "name text NOT NULL, checksum text NOT NULL, "
      "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())",
      deadline);
  const Rows rows =
      connection.run_script("SELECT version, checksum FROM schema_migrations", deadline);
  std::map<int, std::string> found;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    found.emplace(std::stoi(std::string(rows.text(row, 0))), rows.text(row, 1));
  }
  return found;
}

}  // namespace

std::vector<std::string> migrate(const std::string& url, const fs::path& directory) {
  const std::vector<Migration> migrations = read_migrations(directory);
  // A migration takes as long as it takes; only getting in has a limit.
  Connection connection(url, Deadline::in(std::chrono::seconds(10)));
  const Deadline never = Deadline::never();
  connection.run_script("SET client_min_messages = warning", never);
  // Held until the connection ends.
  connection.run_script(fmt::format("SELECT pg_advisory_lock({})", lock_number), never);
  const std::map<int, std::string> known = applied(connection, never);
  if (!known.empty() && known.rbegin()->first > migrations.back().version) {
    throw std::runtime_error(
        fmt::format("cannot use this database: it has version {}, this program knows only {}",
                    known.rbegin()->first, migrations.back().version));
  }
  std::vector<std::string> done;
  for (const Migration& migration : migrations) {
    const auto before = known.find(migration.version);
    if (before != known.end()) {
      if (before->second == migration.checksum) continue;
      throw std::runtime_error("cannot go on: " + migration.name +
                               " is not what was applied; add a new migration instead");
    }
    connection.run_script("BEGIN", never);
    try {
      connection.run_script(migration.sql, never);
      connection.run(
          "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1::integer, $2, $3)",
          {std::to_string(migration.version), migration.name, migration.checksum}, never);
      connection.run_script("COMMIT", never);
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("could not apply {}: {}", migration.name, error.what()));
    }
    done.push_back(migration.name);
  }
  return done;
}

}  // namespace reference::database
