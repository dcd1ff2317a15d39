#pragma once

// What tests of `wal receive` share: a cluster whose WAL comes into the repository by nothing else,
// and writers that know exactly what was acknowledged to them.

#include <atomic>
#include <mutex>
#include <thread>

#include "faults/faults.h"
#include "harness/witness.h"

namespace holdfast::tests {

/// Replaces the connection in a place's configuration.
inline void connect_to(const Place& place, const std::string& connection) {
  std::string text = text_of(place.configuration());
  const std::size_t begin = text.find("connection = ");
  text.replace(begin, text.find('\n', begin) - begin, "connection = \"" + connection + "\"");
  overwrite(place.configuration(), text);
}

/// A cluster without archiving, and a backup of it.
class ReceiveTest : public testing::Test {
 protected:
  explicit ReceiveTest(int major = 15) : source_(place_.cluster(major)) {
    source_->sql("CREATE TABLE t (id serial, v text)");
    restart();
    place_.must({"backup"});
  }

  /// The server with archiving off, and other settings.
  void restart(postgres::Settings settings = {}) {
    source_->stop();
    settings.emplace_back("archive_mode", "off");
    source_->start(settings);
    point_configuration_at(place_, *source_);
  }

  std::unique_ptr<Running> receive(const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments{"wal", "receive"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    auto running = std::make_unique<Running>(place_, arguments);
    eventually("WAL is received", [&] {
      if (running->over()) throw std::runtime_error("it ended: " + running->said());
      return running->said().find("receiving WAL") != std::string::npos;
    });
    return running;
  }
  void insert(const std::string& value) const {
    source_->sql("INSERT INTO t (v) VALUES ('" + value + "')");
  }
  static std::string rows(const Cluster& cluster) {
    return cluster.sql("SELECT string_agg(v, ' ' ORDER BY id) FROM t");
  }
  nlohmann::json listed() const { return place_.must({"list", "--json"}).json(); }
  /// How far the repository reaches.
  postgres::Lsn end() const {
    const auto windows = listed().at("recovery_windows");
    return windows.empty()
               ? postgres::Lsn{}
               : postgres::parse_lsn(windows.back().at("to_lsn").get<std::string>()).value();
  }
  /// Waits until the repository holds all that the cluster has written so far.
  void await_all_stored(const Cluster& cluster) const {
    const auto written =
        postgres::parse_lsn(cluster.sql("SELECT pg_current_wal_insert_lsn()")).value();
    cluster.sql("SELECT pg_create_restore_point('behind')");
    eventually("all WAL is in the repository", [&] { return end() >= written; });
  }
  std::vector<fs::path> slices() const {
    std::vector<fs::path> found;
    for (const fs::path& each : objects(place_, "wal")) {
      if (each.parent_path().extension() == ".d") found.push_back(each);
    }
    return found;
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

/// Sessions that insert rows into `ticks` as fast as they can, and note what was acknowledged when.
class Writers {
 public:
  using Clock = std::chrono::steady_clock;
  struct Acknowledged {
    int writer;
    int number;
    Clock::time_point when;
  };

  Writers(const Cluster& cluster, int count) {
    cluster.sql("CREATE TABLE IF NOT EXISTS ticks (writer int, number int)");
    for (int writer = 0; writer < count; ++writer) {
      threads_.emplace_back([this, writer, connection = cluster.connection()] {
        try {
          postgres::Session session(connection);
          for (int number = 1; !stopped_; ++number) {
            session.query("INSERT INTO public.ticks VALUES ($1, $2)",
                          {std::to_string(writer), std::to_string(number)});
            const std::lock_guard lock(mutex_);
            acknowledged_.push_back({writer, number, Clock::now()});
          }
        } catch (const std::exception&) {
          // The server was killed.
        }
      });
    }
  }
  std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return acknowledged_.size();
  }
  /// Ends all (the server must be dead, or answering) and returns what was acknowledged.
  std::vector<Acknowledged> finish() {
    stopped_ = true;
    threads_.clear();
    return acknowledged_;
  }
  /// How many rows that were acknowledged before `before` a cluster lacks.
  static int missing(const std::vector<Acknowledged>& rows, const Cluster& cluster,
                     Clock::time_point before) {
    std::map<int, int> last;
    postgres::Session session = cluster.session();
    for (const auto& row : session.query("SELECT writer, max(number) FROM ticks GROUP BY 1")) {
      last[std::stoi(*row[0])] = std::stoi(*row[1]);
    }
    return static_cast<int>(std::ranges::count_if(rows, [&](const Acknowledged& row) {
      return row.when < before && row.number > last[row.writer];
    }));
  }

 private:
  mutable std::mutex mutex_;
  std::atomic<bool> stopped_ = false;
  std::vector<Acknowledged> acknowledged_;
  std::vector<std::jthread> threads_;
};

}  // namespace holdfast::tests
