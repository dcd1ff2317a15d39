#include "operations/migrate.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/evidence.h"
#include "operations/pin.h"
#include "operations/verify.h"
#include "postgres/administration.h"
#include "repository/lease.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using repository::Migration;
using repository::Migrations;

/// The status of a command that could not be run, as a shell says it.
constexpr int not_run = 126;

/// How long a snapshot is pinned while the way back is being proven.
constexpr base::Microseconds preparing = std::chrono::days(3);

void check_program(const std::string& name) {
  const auto runs = [](const base::fs::path& path) {
    std::error_code unseen;  // a directory of PATH that is not for us is passed over
    return base::fs::is_regular_file(path, unseen) && ::access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    if (runs(name)) return;
  } else {
    const char* given = std::getenv("PATH");
    const std::string path = given == nullptr ? "/usr/bin:/bin" : given;
    for (std::size_t at = 0; at <= path.size();) {
      const std::size_t end = std::min(path.find(':', at), path.size());
      if (runs(base::fs::path(path.substr(at, end - at)) / name)) return;
      at = end + 1;
    }
  }
  throw Error(Code::not_found, fmt::format("cannot run \"{}\": there is no such program", name),
              "a line for a shell has to be given to one: -- sh -c \"...\"");
}

void check_restore_directory(const base::fs::path& directory) {
  if (directory.empty()) return;
  const auto names = base::directory_names(directory);
  if (base::status_of(directory) && (!names || !names->empty())) {
    throw Error(Code::refused,
                fmt::format("cannot restore into \"{}\" if need be: it is not an empty directory",
                            directory.string()),
                "name one that is empty or not there yet");
  }
}

/// What would only come out after the snapshot, which takes its time.
void check_server(const Configuration& configuration, postgres::Session& session) {
  if (session.in_recovery()) {
    throw Error(Code::refused, "cannot make a restore point on a standby",
                "let holdfast.toml name the primary, which the migration changes");
  }
  for (const char* function : {"pg_create_restore_point(text)", "pg_switch_wal()"}) {
    if (session.value("SELECT has_function_privilege($1, 'execute')", {function}) == "t") continue;
    throw Error(Code::permission, fmt::format("cannot call {}", function),
                fmt::format("GRANT EXECUTE ON FUNCTION {} TO the role of `connection`", function));
  }
  const std::string received = session.value(
      "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = $1::name",
      {configuration.wal.slot});
  const auto mode = session.setting("archive_mode");
  if (mode == "off" && received == "0") {
    throw Error(Code::wal_missing,
                "cannot bring a restore point into the repository: the server does not archive "
                "(archive_mode = off), and `holdfast wal receive` does not run",
                "set it up with `holdfast doctor --fix`");
  }
}

base::Command command_of(std::vector<std::string> argv) {
  base::Command command;
  command.argv = std::move(argv);
  return command;
}

/// HEAD of the working directory, or nothing.
std::string deployed_commit(const std::string& given) {
  if (!given.empty()) return given;
  try {
    base::Outcome asked = base::run(command_of({"git", "rev-parse", "--verify", "HEAD"}));
    if (asked.status != 0) return {};
    while (!asked.output.empty() && asked.output.back() == '\n') asked.output.pop_back();
    return asked.output;
  } catch (const Error&) {
    return {};  // no git, no commit
  }
}

/// The way back in one repository.
class Way {
 public:
  Way(const Configuration& configuration, const std::string& cluster, postgres::Session& session)
      : site_(open_site(configuration, cluster)),
        place_({site_.cluster.name, postgres::to_string(session.system_id())}) {
    if (!site_.repository.is_registered(place_)) {
      throw Error(Code::foreign,
                  fmt::format("cannot migrate: the server of cluster {} is not one of those that "
                              "this repository knows",
                              site_.cluster.name),
                  "`holdfast doctor` says what is wrong");
    }
    lease_ = std::make_unique<repository::Lease>(site_.repository, place_, "migration");
  }

  const std::string& name() const { return site_.configuration.repository().name; }
  const Site& site() const { return site_; }
  const Migration& migration() const { return migration_; }

  /// A migration before this one that has no end was cut off: this one has the lease. Once one
  /// behind it came to its end, whoever ran that was told.
  void warn_of_cut_off(base::Progress& progress) const {
    std::vector<Migration> open;
    for (Migration& each : Migrations(site_.repository, place_).all()) {
      if (!each.readable) continue;
      if (each.end) {
        open.clear();
      } else {
        open.push_back(std::move(each));
      }
    }
    for (const Migration& each : open) {
      progress.warn(
          "migration {} was begun and has no end: it was cut off, or its end could not be "
          "recorded. Its way back: "
          "`holdfast restore DIR --to name:{}`",
          each.id, each.restore_point);
    }
  }

  void take_snapshot(const MigrationRequest& request, const Migration& what,
                     base::Progress& progress) {
    migration_ = what;
    const base::Microseconds keep = request.keep.value_or(site_.configuration.keep.snapshots);
    BackupRequest wanted;
    wanted.workers = request.workers;
    const std::string reason =
        fmt::format("before migration {}{}", what.id,
                    what.commit.empty() ? "" : fmt::format(" (commit {})", what.commit));
    // For long only once the journal has it: of a migration that dies before that nothing is known,
    // and nobody would release its pin.
    keep_ = keep;
    const Snapshot taken =
        operations::take_snapshot(site_, wanted, std::min(keep, preparing), reason, progress);
    pin_ = taken.pin;
    backup_ = taken.backup;
    migration_.backup = backup_.id;
    migration_.timeline = backup_.timeline.value;
    if (backup_.is_damaged()) {
      throw Error(Code::damaged,
                  fmt::format("the snapshot, backup {}, is damaged: pages of {} files of the "
                              "cluster fail their checksums",
                              backup_.id.text, backup_.damaged.size()),
                  "`holdfast list` shows the backups; see to the cluster's disk first");
    }
    const BackupVerdict verdict = verify_backup(site_, backup_.id, request.workers, progress);
    if (!verdict.problems.empty()) {
      throw Error(Code::corrupt,
                  fmt::format("the snapshot, backup {}, cannot be restored: {}", backup_.id.text,
                              verdict.problems.front()),
                  "`holdfast verify` says what is wrong with the repository");
    }
  }

  /// Is the WAL there from the snapshot to the restore point?
  bool has_wal_to(Lsn lsn) const {
    const WalCoverage coverage(repository::WalArchive(site_.repository, place_),
                               backup_.segment_size);
    const auto history = coverage.history(backup_.timeline);
    return history && coverage.contiguous_end(*history, backup_.start) >= lsn;
  }

  /// Finds the restore point in the WAL that is archived, as a restore would.
  void prove(Lsn lsn) {
    RestoreRequest request;
    request.to = "name:" + migration_.restore_point;
    request.backup = backup_.id.text;
    plan_restore(site_, request);
    migration_.lsn = postgres::to_string(lsn);
  }

  void begin() {
    lease_->check();
    migration_.begun = base::now();
    Migrations(site_.repository, place_).begin(migration_);
    begun_ = true;
    const repository::Pin until_then = *pin_;
    pin_ = pin_backup(site_, backup_.id.text, base::now() + keep_, until_then.reason);
    repository::Pins(site_.repository, place_).release(until_then, base::now());
  }
  void end(const Migration::End& end) {
    Migrations(site_.repository, place_).end(migration_, end);
    migration_.end = end;
  }

  /// The command was not started, so nobody needs the snapshot for longer than others.
  void give_up() noexcept {
    if (!pin_) return;
    try {
      if (begun_) Migrations(site_.repository, place_).end(migration_, {base::now(), not_run});
      repository::Pins(site_.repository, place_).release(*pin_, base::now());
    } catch (const std::exception&) {
      // It holds until its end, then; why the migration was refused matters more.
    }
  }

 private:
  Site site_;
  repository::ClusterPlace place_;
  std::unique_ptr<repository::Lease> lease_;
  Migration migration_;
  BackupInfo backup_;
  std::optional<repository::Pin> pin_;
  base::Microseconds keep_{};  ///< how long it is pinned once the journal has it
  bool begun_ = false;         ///< the journal has it
};

std::string quoted(const std::string& word) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=+@%,";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

class Migrating::Run {
 public:
  Run(const std::vector<Configuration>& repositories, const std::string& cluster,
      const MigrationRequest& request, SayFailure say)
      : repositories_(repositories),
        cluster_(repositories.front().cluster(cluster)),
        request_(request),
        say_(std::move(say)),
        session_(cluster_.connection) {}

  void prepare(base::Progress& progress) {
    check_program(request_.command.front());
    check_restore_directory(request_.auto_restore);
    check_server(repositories_.front(), session_);
    what_.id = new_evidence_id(base::now());
    what_.restore_point = "migration-" + what_.id;
    what_.commit = deployed_commit(request_.commit);
    what_.program = base::fs::path(request_.command.front()).filename();
    what_.by = operator_name("");
    try {
      open_ways(progress);
      for_each_way([&](Way& way) { way.take_snapshot(request_, what_, progress); });
      const Lsn point = make_restore_point();
      await_wal(point, progress);
      for_each_way([&](Way& way) { way.prove(point); });
      base::stop_if_interrupted();
      for_each_way([](Way& way) { way.begin(); });
    } catch (const Error&) {
      for (const auto& way : ways_) way->give_up();
      throw;
    }
  }

  int run_command() {
    int status = not_run;
    try {
      status = base::run_in_foreground(command_of(request_.command), request_.output);
    } catch (const Error& error) {
      // The journal has it as begun, so it ends, too: as a shell says it.
      say_("", error);
      if (error.code() == Code::not_found) status = 127;
    }
    end(status);
    return status;
  }
  RestoreOutcome restore(base::Progress& progress) const {
    RestoreOptions options;
    options.directory = request_.auto_restore;
    options.request.to = "name:" + what_.restore_point;
    options.instant = request_.instant;
    options.workers = request_.workers;
    return restore_from_any(repositories_, cluster_.name, options, progress);
  }

  std::vector<WayBack> ways_back() const {
    std::vector<WayBack> all;
    for (const auto& way : ways_) {
      all.push_back({way->name(), way->migration()});
    }
    return all;
  }

 private:
  void end(int status) {
    const Migration::End end{base::now(), status};
    for (const auto& way : ways_) {
      try {
        way->end(end);
      } catch (const Error& error) {
        say_(way->name(), error.with_context("could not record how the migration ended"));
      }
    }
  }

  void open_ways(base::Progress& progress) {
    for (const Configuration& each : repositories_) {
      attempt(each.repository().name, [&] {
        ways_.push_back(std::make_unique<Way>(each, cluster_.name, session_));
        ways_.back()->warn_of_cut_off(progress);
      });
    }
    check_enough();
  }

  /// Of several repositories one may fail.
  void attempt(const std::string& repository, const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      const bool ours = error.code() == Code::interrupted || error.code() == Code::usage;
      if (repositories_.size() == 1 || ours) throw;
      if (!first_error_) first_error_ = error;
      say_(repository, error);
    }
  }
  void for_each_way(const std::function<void(Way&)>& work) {
    std::erase_if(ways_, [&](const std::unique_ptr<Way>& way) {
      bool done = false;
      attempt(way->name(), [&] {
        try {
          work(*way);
        } catch (const Error&) {
          way->give_up();
          throw;
        }
        done = true;
      });
      return !done;
    });
    check_enough();
  }
  void check_enough() const {
    if (ways_.size() >= repositories_.front().wal.copies && !ways_.empty()) return;
    throw first_error_.value_or(
        Error(Code::configuration, "cannot migrate: fewer repositories are meant than [wal] copies",
              "leave out --repository"));
  }

  Lsn make_restore_point() {
    base::stop_if_interrupted();
    const Lsn point = postgres::create_restore_point(session_, what_.restore_point);
    postgres::switch_wal(session_);
    return point;
  }

  void await_wal(Lsn point, base::Progress& progress) {
    progress.begin("waiting until the restore point is in the repository", 0);
    const auto limit = std::chrono::steady_clock::now() + request_.archived_within;
    for_each_way([&](Way& way) {
      while (!way.has_wal_to(point)) {
        base::stop_if_interrupted();
        if (std::chrono::steady_clock::now() > limit) refuse_without_wal();
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
  }
  [[noreturn]] void refuse_without_wal() {
    const postgres::ArchiverStatus archiver = postgres::archiver_status(session_);
    throw Error(Code::wal_missing,
                fmt::format("restore point {} did not come into the repository within {}{}",
                            what_.restore_point, base::to_string_short(request_.archived_within),
                            archiver.failing ? fmt::format(": the server could not archive {}",
                                                           archiver.last_failed)
                                             : ""),
                "the server's log says why; `holdfast doctor` looks at archiving");
  }

  const std::vector<Configuration>& repositories_;
  const ClusterConfiguration& cluster_;
  const MigrationRequest& request_;
  SayFailure say_;
  postgres::Session session_;
  Migration what_;
  std::vector<std::unique_ptr<Way>> ways_;
  std::optional<Error> first_error_;
};

Migrating::Migrating(const std::vector<Configuration>& repositories, const std::string& cluster,
                     const MigrationRequest& request, SayFailure say)
    : run_(std::make_unique<Run>(repositories, cluster, request, std::move(say))) {}
Migrating::~Migrating() = default;
void Migrating::prepare(base::Progress& progress) {
  run_->prepare(progress);
}
int Migrating::run_command() {
  return run_->run_command();
}
RestoreOutcome Migrating::restore(base::Progress& progress) const {
  return run_->restore(progress);
}
std::vector<WayBack> Migrating::ways_back() const {
  return run_->ways_back();
}

std::string restore_command(const Configuration& configuration, const std::string& cluster,
                            const Migration& migration) {
  const ClusterConfiguration& meant = configuration.cluster(cluster);
  const base::fs::path beside =
      meant.data_directory.empty()
          ? base::fs::current_path() / migration.restore_point
          : base::fs::path(meant.data_directory.string() + "-before-" + migration.restore_point);
  std::string line = fmt::format("holdfast --config {} restore {} --to name:{}",
                                 quoted(configuration.path.string()), quoted(beside.string()),
                                 migration.restore_point);
  if (configuration.clusters.size() > 1) line += " --cluster " + quoted(meant.name);
  return line;
}

std::vector<JournalEntry> list_migrations(const Site& site) {
  std::vector<Migration> all;
  std::vector<std::string> running;
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    const repository::ClusterPlace place{site.cluster.name, system};
    // Before the journal is read: one that ends meanwhile has its end in it.
    const auto held = repository::held_since(site.repository, place, "migration");
    for (Migration& each : Migrations(site.repository, place).all()) {
      // Who holds the lease began his after he took it, and may be about to begin it.
      if (held && !each.end && each.begun >= *held) running.push_back(each.id);
      all.push_back(std::move(each));
    }
  }
  repository::sort_by_beginning(all);
  std::vector<JournalEntry> entries;
  for (Migration& each : all) {
    const bool runs = std::ranges::find(running, each.id) != running.end();
    entries.push_back({std::move(each), runs});
  }
  return entries;
}

}  // namespace holdfast::operations
