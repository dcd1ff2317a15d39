// The differential fuzzer of changed-pages backups.
//
// A cluster is changed at random, stands still, and is backed up by one of the ways to find what
// has changed. A restore of that backup must be the files that are on disk, byte for byte: nothing
// else wrote since the backup's checkpoint. Each backup builds on the one before, so an unchanged
// page that was none is found at once, whatever the way.
//
// HOLDFAST_LONG=1 makes it long; HOLDFAST_SEED repeats a run.

#include <cstdlib>

#include "base/error.h"
#include "base/testing.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::testing::Random;

const postgres::Settings quiet = {{"autovacuum", "off"},        {"bgwriter_lru_maxpages", "0"},
                                  {"checkpoint_timeout", "1h"}, {"max_wal_size", "4GB"},
                                  {"shared_buffers", "64MB"},   {"max_prepared_transactions", "5"},
                                  {"wal_keep_size", "64MB"}};

/// A way of its own: through a replication connection, by the server's summaries.
const std::string agentless = "agentless";

std::size_t seed() {
  const char* given = std::getenv("HOLDFAST_SEED");
  return given != nullptr ? std::strtoul(given, nullptr, 10) : 20261123;
}
bool is_long() {
  return std::getenv("HOLDFAST_LONG") != nullptr;
}

/// A cluster to which anything may happen.
class Story {
 public:
  explicit Story(int major, std::size_t seed)
      : major_(major), random_(seed), cluster_(place_.cluster(major)) {
    settings_ = quiet;
    for (const auto& setting : archiving(place_)) settings_.push_back(setting);
    if (major >= 17) settings_.emplace_back("summarize_wal", "on");
    restart(postgres::Server::StopMode::fast);
    for (const char* space : {"space_a", "space_b"}) {
      fs::create_directory(place_.path(space));
      place_.give_to_server_user(place_.path(space));
      sql(fmt::format("CREATE TABLESPACE {} LOCATION '{}'", space, place_.path(space).string()));
    }
    for (int i = 0; i < 3; ++i) create_table();
  }

  void change() {
    for (std::size_t i = 1 + random_.below(8); i > 0; --i) {
      const auto what = random_.below(100);
      if (what < 45) {
        write();
      } else if (what < 90) {
        define();
      } else {
        upset();
      }
    }
  }

  /// Backs up, restores, compares.
  void check(const std::string& way) {
    const std::string configuration = text_of(place_.configuration());
    if (way == agentless) make_agentless(place_);
    const Result backup =
        place_.must({"backup", "--json", "--compare", way == agentless ? "summaries" : way});
    overwrite(place_.configuration(), configuration);
    if (backup.status != 0) return;
    const auto made = backup.json();
    const std::string compared = made.at("compared");
    log_.push_back(fmt::format("-- backup by {}: {}", way, compared));
    if (way != agentless) {
      ++compared_[compared];
    } else if (compared == "summaries") {
      ++compared_[way];
    }
    const std::string target = fmt::format("restored-{}", ++restores_);
    std::vector<std::string> restore = {
        "restore", place_.path(target).string(), "--backup", made.at("id"), "--to", "immediate"};
    for (const char* space : {"space_a", "space_b"}) {
      const auto at = place_.path(target + space);
      restore.insert(restore.end(),
                     {"--tablespace", fmt::format("{}={}", oid_of(space), at.string())});
    }
    place_.must(restore);
    const std::string wrong = differences_on_disk(cluster_->data_directory(), place_.path(target));
    EXPECT_EQ(wrong, "") << "seed " << seed() << ", the last statements:\n" << last_statements();
    for (const char* suffix : {"", "space_a", "space_b"})
      fs::remove_all(place_.path(target + suffix));
  }

  /// The cluster goes on as its own restore, on a new timeline and in other files.
  void go_on_restored() {
    log_.emplace_back("-- restored and promoted");
    place_.archive_all(*cluster_);
    cluster_->stop();
    const std::string target = fmt::format("life-{}", ++lives_);
    std::vector<std::string> restore = {"restore", place_.path(target).string(), "--action",
                                        "promote"};
    for (const char* space : {"space_a", "space_b"}) {
      restore.insert(restore.end(),
                     {"--tablespace",
                      fmt::format("{}={}", oids_[space], place_.path(target + space).string())});
    }
    place_.must(restore);
    cluster_ = adopt(cluster_->installation(), place_.path(target));
    cluster_->start(settings_);
    cluster_->server().await_recovery_end(std::chrono::seconds(120));
    point_configuration_at(place_, *cluster_);
  }

  const std::map<std::string, int>& compared() const { return compared_; }

 private:
  std::string oid_of(const std::string& space) {
    auto& oid = oids_[space];
    if (oid.empty()) {
      oid = cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = '" + space + "'");
    }
    return oid;
  }

  std::string last_statements() const {
    std::string all;
    for (std::size_t i = log_.size() < 40 ? 0 : log_.size() - 40; i < log_.size(); ++i) {
      all += log_[i] + "\n";
    }
    return all;
  }

  /// What the server refuses has not happened, which is a fate of statements, too.
  void sql(const std::string& statement, const std::string& database = "postgres") {
    log_.push_back(statement);
    try {
      cluster_->session(database).run_script(statement);
    } catch (const base::Error& error) {
      log_.push_back("-- " + error.message());
      if (error.code() == base::Code::unreachable) throw;
    }
  }

  std::string table() { return tables_[random_.below(tables_.size())]; }
  std::string rows() { return std::to_string(1 + random_.below(random_.chance(10) ? 20000 : 800)); }

  void create_table() {
    static int count = 0;
    const std::string name = fmt::format("t{}", ++count);
    const bool unlogged = random_.chance(15);
    sql(
        fmt::format("CREATE {}TABLE {} (id serial, k int, s text, p point, a int[]) WITH "
                    "(fillfactor = {}) {}",
                    unlogged ? "UNLOGGED " : "", name, 50 + random_.below(50),
                    random_.chance(30) ? "TABLESPACE space_a" : ""));
    tables_.push_back(name);
    insert(name);
    static constexpr std::array<std::string_view, 7> indexes = {
        "USING btree (id)", "USING hash (k)", "USING gin (a)",     "USING gist (p)",
        "USING spgist (p)", "USING brin (k)", "USING btree (s, k)"};
    for (std::size_t i = random_.below(4); i > 0; --i) {
      sql(fmt::format("CREATE INDEX ON {} {}", name, indexes[random_.below(indexes.size())]));
    }
  }

  void insert(const std::string& name) {
    sql(
        fmt::format("INSERT INTO {} (k, s, p, a) SELECT i % 97, repeat(md5(i::text), {}), "
                    "point(i, i % 13), ARRAY[i, i % 7] FROM generate_series(1, {}) AS i",
                    name, random_.chance(10) ? 100 : 1 + random_.below(4), rows()));
  }

  void write() {
    if (tables_.empty()) return create_table();
    const std::string name = table();
    switch (random_.below(10)) {
      case 0:
      case 1:
        return insert(name);
      case 2:
        return sql(fmt::format("DELETE FROM {} WHERE id % {} = 0", name, 2 + random_.below(50)));
      case 3:
        return sql(fmt::format("BEGIN; UPDATE {} SET k = -k; ROLLBACK", name));
      case 4:
        return sql(fmt::format("SELECT lo_from_bytea(0, decode(repeat('ab', {}), 'hex'))",
                               random_.below(9000)));
      case 5:
        return sql(fmt::format("SELECT count(*) FROM {} WHERE s LIKE '%a%'", name));  // hint bits
      case 6:
        return sql(fmt::format("SELECT nextval('{}_id_seq') FROM generate_series(1, {})", name,
                               1 + random_.below(70)));
      default:
        return sql(fmt::format("UPDATE {} SET k = k + 1 WHERE id % {} = {}", name,
                               1 + random_.below(300), random_.below(20)));
    }
  }

  void define() {
    if (tables_.empty() || random_.chance(15)) return create_table();
    const std::string name = table();
    switch (random_.below(16)) {
      case 0:
        return sql("VACUUM FULL " + name);
      case 1:
        return sql("TRUNCATE " + name);
      case 2:
        if (tables_.size() < 3) return;
        std::erase(tables_, name);
        return sql("DROP TABLE " + name);
      case 3:
        return sql("REINDEX TABLE " + name);
      case 4:
        return sql(fmt::format("ALTER TABLE {} SET TABLESPACE {}", name,
                               random_.chance(50) ? "space_b" : "pg_default"));
      case 5:
        return sql(
            fmt::format("ALTER TABLE {} SET {}", name, random_.chance(70) ? "LOGGED" : "UNLOGGED"));
      case 6:
        return sql(fmt::format("ALTER TABLE {} ADD COLUMN c{} int DEFAULT {}", name,
                               random_.below(1000), random_.chance(50) ? "7" : "random()"));
      case 7:
        return sql(fmt::format("DELETE FROM {0} WHERE id > (SELECT max(id) / {1} FROM {0})", name,
                               1 + random_.below(5)));
      case 8:
        return sql("CHECKPOINT");
      case 9:
        return sql("SELECT pg_switch_wal()");
      case 10:
        return databases();
      case 11:
        return sql("VACUUM FREEZE " + name);
      case 12:
        return sql("CREATE MATERIALIZED VIEW IF NOT EXISTS mv AS SELECT * FROM pg_class");
      case 13:
        return sql("REFRESH MATERIALIZED VIEW mv");
      default:
        return sql("VACUUM " + name);  // truncates what was deleted at the end
    }
  }

  void databases() {
    if (databases_.size() > 1 || (!databases_.empty() && random_.chance(40))) {
      const std::string name = databases_.back();
      if (random_.chance(40)) {
        return sql(fmt::format("ALTER DATABASE {} SET TABLESPACE {}", name,
                               random_.chance(50) ? "space_a" : "pg_default"));
      }
      databases_.pop_back();
      return sql("DROP DATABASE " + name);
    }
    static int count = 0;
    const std::string name = fmt::format("d{}", ++count);
    sql(fmt::format("CREATE DATABASE {} {}", name,
                    major_ >= 15
                        ? fmt::format("STRATEGY {}", random_.chance(50) ? "wal_log" : "file_copy")
                        : ""));
    databases_.push_back(name);
    sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) AS i", name);
  }

  void restart(postgres::Server::StopMode mode) {
    cluster_->stop(mode);
    cluster_->start(settings_);
    point_configuration_at(place_, *cluster_);
  }

  void upset() {
    switch (random_.below(4)) {
      case 0:
        log_.emplace_back("-- crash");
        return restart(postgres::Server::StopMode::immediate);
      case 1:
        log_.emplace_back("-- restart");
        return restart(postgres::Server::StopMode::fast);
      case 2:
        sql(fmt::format("BEGIN; UPDATE {} SET k = 0; PREPARE TRANSACTION 'p'", tables_.front()));
        return sql(random_.chance(50) ? "COMMIT PREPARED 'p'" : "ROLLBACK PREPARED 'p'");
      default:
        return sql("SELECT txid_current() FROM generate_series(1, 10)");
    }
  }

  int major_;
  Random random_;
  Place place_;
  std::unique_ptr<Cluster> cluster_;
  postgres::Settings settings_;
  std::vector<std::string> tables_;
  std::vector<std::string> databases_;
  std::map<std::string, std::string> oids_;
  std::vector<std::string> log_;
  std::map<std::string, int> compared_;
  int restores_ = 0;
  int lives_ = 0;
};

std::vector<int> majors() {
  return is_long() ? std::vector<int>{15, 17, 18} : std::vector<int>{15, 17};
}

class ChangedPagesFuzz : public testing::TestWithParam<int> {};

TEST_P(ChangedPagesFuzz, every_backup_is_what_was_on_disk) {
  const int major = GetParam();
  const std::vector<std::string> ways =
      major >= 17 ? std::vector<std::string>{"wal",     agentless, "pages", "summaries",
                                             agentless, "content", "auto"}
                  : std::vector<std::string>{"wal", "pages", "content", "auto"};
  Story story(major, seed() + static_cast<std::size_t>(major));
  story.check("auto");
  const int rounds = is_long() ? 300 : major >= 17 ? 10 : 9;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    if (round % 7 == 6) story.go_on_restored();
    story.change();
    story.check(ways[static_cast<std::size_t>(round) % ways.size()]);
  }
  // The ways that were asked for must have been gone, or nothing was tested (TRAPS VE9).
  for (const std::string& way : ways) {
    if (way == "auto") continue;
    const auto gone = story.compared().find(way);
    EXPECT_TRUE(gone != story.compared().end() && gone->second > rounds / 12) << way;
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, ChangedPagesFuzz, testing::ValuesIn(majors()));

}  // namespace
}  // namespace holdfast::tests
