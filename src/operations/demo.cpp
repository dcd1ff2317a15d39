#include "operations/demo.h"

#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "operations/backup.h"
#include "operations/demo_schema.h"
#include "operations/doctor.h"
#include "operations/initialize.h"
#include "operations/restore.h"
#include "operations/wal_end.h"
#include "postgres/administration.h"
#include "postgres/server.h"

namespace holdfast::operations {

namespace {

using base::fs::path;

/// A commit that a writer was told is done.
struct Acknowledged {
  std::uint64_t number = 0;
  postgres::Lsn lsn;  ///< its commit record ends at or before this
  base::Timestamp at;
};

/// One client that writes as fast as it is answered, until the server is gone.
class Writer {
 public:
  Writer(int id, const std::string& connection) : id_(id), connection_(connection) {}

  void start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { write(stop); });
  }
  void stop() {
    thread_.request_stop();
    thread_.join();
  }
  const std::vector<Acknowledged>& acknowledged() const { return acknowledged_; }
  int id() const { return id_; }

 private:
  void write(const std::stop_token& stop) {
    try {
      postgres::Session session(connection_);
      for (std::uint64_t number = 1; !stop.stop_requested(); ++number) {
        session.query(demo_write, {std::to_string(id_), std::to_string(number)});
        const base::Timestamp at = base::now();
        acknowledged_.push_back({number, session.current_lsn(), at});
      }
    } catch (const base::Error&) {
      // The server is gone: that is the disaster of this demo.
    }
  }

  int id_;
  std::string connection_;
  std::vector<Acknowledged> acknowledged_;
  std::jthread thread_;
};

class Demo {
 public:
  Demo(path directory, const std::function<void(const std::string&)>& say)
      : directory_(std::move(directory)), say_(say) {}

  DemoOutcome run() {
    const auto installation = postgres::find_installation();
    if (!installation) {
      throw base::Error(base::Code::not_found, "could not find a PostgreSQL to demonstrate with",
                        "install one (apt-get install postgresql), or set HOLDFAST_PG_BIN");
    }
    installation_ = *installation;
    outcome_.server_major = installation_.major;
    make_source();
    write_and_back_up();
    lose_everything();
    restore_and_start();
    look_for_rows();
    return outcome_;
  }

 private:
  void make_source();
  void write_and_back_up();
  void lose_everything();
  void restore_and_start();
  void look_for_rows();

  path directory_;
  const std::function<void(const std::string&)>& say_;
  postgres::Installation installation_;
  DemoOutcome outcome_;
  std::unique_ptr<postgres::Server> source_;
  std::unique_ptr<postgres::Server> restored_;
  Configuration configuration_;
  std::vector<std::unique_ptr<Writer>> writers_;
  postgres::Lsn durable_;
  base::Timestamp lost_;
};

void Demo::make_source() {
  const path data = directory_ / "source";
  postgres::make_cluster(installation_, data, {.checksums = true, .wal_segment_bytes = 1 << 20});
  InitRequest init;
  init.configuration = directory_ / "holdfast.toml";
  init.data_directory = data;
  init.connection = "host=/nowhere";  // the socket is known once the server runs
  init.repository = "file://" + (directory_ / "repository").string();
  const InitOutcome made = initialize(init);
  configuration_ = read_configuration(made.configuration);
  source_ = std::make_unique<postgres::Server>(
      installation_, data,
      postgres::Settings{{"archive_mode", "on"},
                         {"archive_timeout", "1"},
                         {"archive_command", archive_command(configuration_, "main")}});
  configuration_.clusters.front().connection = source_->connection();
  base::replace_file(configuration_.path,
                     base::view(write_configuration(configuration_.clusters.front(),
                                                    configuration_.repositories.front())));
  postgres::Session(source_->connection()).run_script(demo_schema);
  say_(
      fmt::format("Made a PostgreSQL {} with organisations, memberships, buildings, comps, tims, "
                  "reports, exports, audit_logs",
                  installation_.major));
}

void Demo::write_and_back_up() {
  for (int id = 1; id <= 2; ++id) {
    writers_.push_back(std::make_unique<Writer>(id, source_->connection()));
    writers_.back()->start();
  }
  say_("Two clients write to it without pause");
  const Site site = open_site(configuration_, "main");
  base::Progress progress;
  const base::Timestamp begun = base::now();
  const BackupInfo backup =
      take_backup(site, {.label = "demo", .workers = base::default_workers()}, progress);
  outcome_.backup_time = base::now() - begun;
  outcome_.backup_bytes = backup.bytes;
  say_(fmt::format("Took encrypted backup {} meanwhile: {} in {}", backup.id.text,
                   base::size_text(backup.bytes), base::to_string_short(outcome_.backup_time)));
}

void Demo::lose_everything() {
  // Some seconds of writing that no backup holds, only archived WAL.
  std::this_thread::sleep_for(std::chrono::milliseconds(3500));
  source_->kill();
  base::fs::remove_all(source_->data_directory());
  lost_ = base::now();
  for (const auto& writer : writers_) {
    writer->stop();
    outcome_.acknowledged += writer->acknowledged().size();
  }
  say_(fmt::format(
      "Killed the server and deleted its data directory in the middle of a write, after "
      "{} acknowledged commits",
      outcome_.acknowledged));
}

void Demo::restore_and_start() {
  const Site site = open_site(configuration_, "main");
  RestoreOptions options;
  options.directory = directory_ / "restored";
  options.workers = base::default_workers();
  base::Progress progress;
  const RestoreOutcome restored = restore(site, options, progress);
  outcome_.restore_time = restored.duration;
  restored_ = std::make_unique<postgres::Server>(installation_, restored.directory);
  restored_->await_recovery_end(std::chrono::seconds(120));
  postgres::Session(restored_->connection()).alive();
  outcome_.rto = base::now() - lost_;

  const repository::WalArchive archive(site.repository, restored.plan.backup.place);
  const WalCoverage coverage(archive, restored.plan.backup.segment_size);
  durable_ = find_wal_end(archive, coverage, restored.plan.history, restored.plan.backup.stop).lsn;
  say_(fmt::format(
      "Restored from the repository alone, replayed the archived WAL to {}, and serving "
      "again",
      postgres::to_string(durable_)));
}

void Demo::look_for_rows() {
  postgres::Session session(restored_->connection());
  base::Timestamp last{};
  for (const auto& writer : writers_) {
    std::set<std::uint64_t> there;
    for (const postgres::Row& row : session.query(demo_read, {std::to_string(writer->id())})) {
      there.insert(std::stoull(row.at(0).value()));
    }
    for (const Acknowledged& each : writer->acknowledged()) {
      const bool found = there.contains(each.number);
      if (found) {
        ++outcome_.recovered;
        last = std::max(last, each.at);
      }
      if (each.lsn > durable_) continue;
      ++outcome_.durable;
      if (!found) ++outcome_.missing;
    }
  }
  outcome_.rpo = lost_ - last;
  restored_->stop(postgres::Server::StopMode::fast);
}

}  // namespace

DemoOutcome run_demo(const path& directory, const std::function<void(const std::string&)>& say) {
  return Demo(directory, say).run();
}

}  // namespace holdfast::operations
