#include "operations/status.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "base/report.h"
#include "operations/recovery_journal.h"
#include "operations/source.h"
#include "operations/status_objectives.h"
#include "operations/systems.h"
#include "postgres/administration.h"
#include "postgres/wal_page.h"
#include "repository/pins.h"

namespace holdfast::operations {

using base::Code;
using base::Error;
using base::Timestamp;
using postgres::Lsn;
using Level = Finding::Level;

namespace {

/// One look at everything; each look that fails is a finding, and the others go on.
class Look {
 public:
  Look(const Configuration& configuration, const std::string& cluster)
      : configuration_(configuration), cluster_(configuration.cluster(cluster)) {}

  StatusReport run() {
    report_.rpo_objective = configuration_.objectives.rpo;
    report_.risk.how = "there is no good backup to start from";
    attempt("repository", [this] { look_at_repository(); });
    of_cluster("server", [this] { look_at_server(); });
    judge();
    of_cluster("drill", [this] { look_at_records(configuration_, cluster_.name, report_); });
    of_cluster("recovery", [this] { look_at_recovery(); });
    of_cluster("uptime", [this] { look_at_uptime(configuration_, report_); });
    return std::move(report_);
  }

 private:
  void note(Level level, std::string about, std::string what, std::string remedy = {}) {
    report_.findings.note(level, std::move(what), std::move(remedy), std::move(about));
  }
  template <typename Work>
  void attempt(std::string about, const Work& work) {
    report_.findings.attempt(work, std::move(about));
  }
  template <typename Work>
  void of_cluster(std::string about, const Work& work) {
    report_.findings.attempt_of_cluster(work, std::move(about));
  }

  void look_at_repository();
  void choose(const Catalog& catalog);
  void look_at_backups(const Catalog& catalog);
  void look_at_room();
  void look_at_pins();
  void look_at_wal(const SystemView& system);
  void look_at_server();
  void look_at_disk();
  void look_at_recovery();
  void look_at_slots(postgres::Session& session);
  void compare_with(postgres::Session& session);
  std::optional<bool> commits_behind_the_archive() const;
  void judge();

  const Configuration& configuration_;
  const ClusterConfiguration& cluster_;
  std::optional<Site> site_;
  std::string system_;                ///< the one that all this is about
  std::vector<SystemView> systems_;   ///< all
  const SystemView* view_ = nullptr;  ///< of `system_`, if it has backups
  std::optional<postgres::TimelineHistory> history_;
  StatusReport report_;
};

void Look::look_at_repository() {
  site_.emplace(open_site(configuration_, cluster_.name));
  const Catalog catalog = read_catalog(*site_);
  choose(catalog);
  look_at_backups(catalog);
  systems_ = view_systems(*site_, catalog);
  for (const SystemView& each : systems_) {
    if (each.place.system_id == system_) view_ = &each;
  }
  if (view_ != nullptr) look_at_wal(*view_);
  look_at_room();
  look_at_pins();
}

/// Of several systems the one in use; where that cannot be told, the one that was written to last.
void Look::choose(const Catalog& catalog) {
  const std::vector<KnownSystem> known = known_systems(*site_, catalog);
  if (known.empty()) return;
  const auto used = std::ranges::find_if(known, &KnownSystem::in_use);
  const KnownSystem& meant = used == known.end() ? known.back() : *used;
  system_ = meant.place.system_id;
  if (known.size() == 1) return;
  if (used == known.end()) {
    note(Level::warning, "system",
         fmt::format("nobody knows which system is in use: this is about {}, which was written to "
                     "last",
                     system_),
         "data_directory and connection in holdfast.toml must mean the server");
  }
  for (const KnownSystem& each : known) {
    const bool is_other = each.place.system_id != system_;
    note(Level::good, "system:" + each.place.system_id,
         (is_other ? "another system under this name: " : "system ") + to_string(each));
  }
}

/// A pin that ends soon: somebody meant the backup to stay until he was done with it.
void Look::look_at_pins() {
  constexpr std::chrono::days soon{3};
  const Timestamp now = base::now();
  for (const SystemView& system : systems_) {
    std::map<std::string, repository::Pin> last;  // a pin that outlasts it takes its place
    for (const repository::Pin& pin : repository::Pins(site_->repository, system.place).all()) {
      if (!pin.readable) continue;
      const auto [known, is_first] = last.try_emplace(pin.backup.text, pin);
      if (!is_first && known->second.until < pin.until) known->second = pin;
    }
    for (const auto& [backup, pin] : last) {
      if (now > pin.until || pin.until - now > soon) continue;
      note(Level::warning, "pin:" + pin.id,
           fmt::format("the pin of backup {} ends at {} ({})", pin.backup.text,
                       base::to_string(pin.until), pin.reason),
           "pin it again if it must stay longer");
    }
  }
}

void Look::look_at_backups(const Catalog& catalog) {
  for (const UnreadableBackup& backup : catalog.unreadable)
    note(Level::bad, "backup:" + backup.id.text, backup.why);
  std::vector<BackupInfo> backups = catalog.backups;
  std::erase_if(backups, [this](const auto& each) { return each.place.system_id != system_; });
  for (const BackupInfo& backup : backups) {
    if (backup.is_damaged()) {
      const bool is_newest = &backup == &backups.back();
      note(is_newest ? Level::bad : Level::warning, "backup:" + backup.id.text,
           fmt::format("backup {} of {} holds damaged pages in {} files", backup.id.text,
                       base::to_string(backup.stopped), backup.damaged.size()),
           is_newest ? "mend what is damaged and take a new backup" : "");
    } else if (backup.is_suspect()) {
      const bool is_newest = &backup == &catalog.backups.back();
      note(is_newest ? Level::bad : Level::warning, "backup:" + backup.id.text,
           fmt::format("backup {} of {} is suspect: {}", backup.id.text,
                       base::to_string(backup.stopped), backup.suspicion),
           is_newest ? "take a new backup: it is compared by content" : "");
    } else {
      report_.newest_good = backup;
    }
  }
  if (!report_.newest_good) {
    note(Level::bad, "backup", "there is no good backup", "take one with `holdfast backup`");
    return;
  }
  report_.newest_good_age =
      std::max(base::Microseconds(0), base::now() - report_.newest_good->stopped);
  note(Level::good, "backup",
       fmt::format("newest good backup {}, {} old", report_.newest_good->id.text,
                   base::to_string_short(*report_.newest_good_age)));
}

void Look::look_at_wal(const SystemView& system) {
  report_.risk.how = "the WAL in the repository could not be read";
  history_ = system.history({});
  report_.windows = recovery_windows(system, *history_);
  report_.findings.note_windows(report_.windows);
  if (report_.windows.empty()) {
    report_.risk.how = "no backup can be restored with the WAL in the repository";
    note(Level::bad, "gap", "there is no recovery window", "take a new backup");
    return;
  }
  const RecoveryWindow& newest = report_.windows.back();
  report_.risk.last_commit = newest.to;
  report_.risk.durable_end = newest.to_lsn;
  report_.risk.how = "the server could not be asked: it may have committed nothing since";
  report_.risk.age = std::max(base::Microseconds(0), base::now() - newest.to);
}

/// A repository that takes nothing more: `wal receive` and the archiver wait until it does.
void Look::look_at_room() {
  constexpr std::string_view scheme = "file://";
  constexpr std::uint64_t one_segment = 16 << 20;
  const std::string url = site_->repository.store().url();
  struct statvfs room {};
  if (!url.starts_with(scheme) || ::statvfs(url.c_str() + scheme.size(), &room) != 0) return;
  const std::uint64_t left = std::uint64_t{room.f_bavail} * room.f_frsize;
  if (left >= one_segment) return;
  const std::optional<Timestamp>& last = report_.risk.last_commit;
  note(Level::bad, "room",
       fmt::format("the repository's file system is full ({} left){}", base::size_text(left),
                   last ? fmt::format(": the last commit in it is of {}, and WAL since then waits "
                                      "on the server",
                                      base::to_string(*last))
                        : ""),
       "make room: `wal receive` and archiving then go on by themselves");
}

void Look::look_at_server() {
  postgres::Session session(cluster_.connection);
  matching_control_file(cluster_, session);
  look_at_disk();
  look_at_slots(session);
  const postgres::ArchiverStatus archiver = postgres::archiver_status(session);
  if (archiver.failing) {
    note(Level::bad, "archiving",
         fmt::format("archiving fails: {} could not be archived", archiver.last_failed),
         "the server's log has the reason; try `holdfast wal push` by hand");
  }
  compare_with(session);
}

/// A server that cannot write WAL any more stops.
/// One that nobody went on with: the service is neither here nor there.
void Look::look_at_recovery() {
  const auto all = read_recoveries(configuration_.recover.state, cluster_.name);
  if (all.empty() || all.back().end != RecoveryEnd::open) return;
  const Recovery& open = all.back();
  std::string_view step = "undo";
  for (const StepRecord& each : open.steps) {
    if (open.undoing || each.state == StepState::done || each.state == StepState::skipped) continue;
    step = name_of(each.step);
    break;
  }
  note(Level::bad, "recovery",
       fmt::format("recovery {}, begun {}, has not ended: it is at {}", open.id,
                   base::to_string(open.begun), step),
       "`holdfast recover --resume` goes on, `holdfast recover --undo` goes back");
}

void Look::look_at_disk() {
  if (cluster_.data_directory.empty()) return;
  const base::fs::path directory = cluster_.data_directory / "pg_wal";
  struct statvfs room {};
  if (::statvfs(directory.c_str(), &room) != 0) {
    return note(Level::warning, "disk",
                fmt::format("nobody knows how much room pg_wal has: {}",
                            std::generic_category().message(errno)),
                "let this user look into the data directory");
  }
  if (room.f_blocks == 0) return;
  const std::uint64_t left = std::uint64_t{room.f_bavail} * room.f_frsize;
  const double share = static_cast<double>(room.f_bavail) / static_cast<double>(room.f_blocks);
  if (share > 0.10) return;
  note(share > 0.03 ? Level::warning : Level::bad, "disk",
       fmt::format("the file system of pg_wal has {} left", base::size_text(left)),
       "make room: a server that cannot write WAL stops");
}

void Look::look_at_slots(postgres::Session& session) {
  for (const postgres::Row& row : session.query(
           "SELECT slot_name, active, wal_status, safe_wal_size FROM pg_replication_slots "
           "ORDER BY 1")) {
    SlotState slot{row[0].value_or(""), row[1] == "t", row[2].value_or(""), {}};
    if (row[3]) {
      std::int64_t bytes = 0;
      std::from_chars(row[3]->data(), row[3]->data() + row[3]->size(), bytes);
      slot.safe_wal_size = bytes;
    }
    if (slot.wal_status == "lost") {
      note(Level::bad, "lost slot:" + slot.name,
           fmt::format("replication slot \"{}\" has lost WAL that it needs", slot.name),
           "see max_slot_wal_keep_size; who read from it must begin anew with a new slot");
    } else if (slot.wal_status == "unreserved") {
      note(Level::bad, "slot:" + slot.name,
           fmt::format("replication slot \"{}\" is about to lose WAL that it needs", slot.name),
           "see max_slot_wal_keep_size, and who should read from the slot");
    } else if (slot.wal_status == "extended") {
      note(Level::warning, "slot:" + slot.name,
           fmt::format("replication slot \"{}\" holds back more WAL than max_wal_size", slot.name),
           "whoever should read from it does not keep up, or is gone");
    }
    report_.slots.push_back(std::move(slot));
  }
}

void Look::compare_with(postgres::Session& session) {
  DataAtRisk& risk = report_.risk;
  if (!risk.last_commit) return;
  if (postgres::to_string(session.system_id()) != system_) {
    note(Level::bad, "server", "the server is another system than the one in the repository",
         "take a backup of it, or mend connection in holdfast.toml");
    risk.age.reset();
    risk.how = "the server is another system";
    return;
  }
  const Timestamp now = session.clock();
  risk.server_end = session.current_lsn();
  const std::optional<bool> behind = commits_behind_the_archive();
  if (behind == false) {
    risk.age = base::Microseconds(0);
    risk.how = "the server has committed nothing that the repository lacks";
    return;
  }
  risk.age = std::max(base::Microseconds(0), now - *risk.last_commit);
  risk.how = behind ? "the age of the last commit in the repository; the server has newer ones"
                    : "the age of the last commit in the repository; the server may have newer "
                      "ones: its pg_wal could not be read, or holds too much";
  if (report_.windows.back().is_at_least) {
    risk.how += " (not all of the WAL was read: it may be younger)";
  }
}

/// Reads what the server has written behind the WAL in the repository. nullopt: it cannot be told.
std::optional<bool> Look::commits_behind_the_archive() const {
  const SystemView& system = *view_;
  const postgres::SegmentSize size = system.coverage.segment_size();
  const DataAtRisk& risk = report_.risk;
  if (*risk.server_end <= risk.durable_end) return false;
  bool found = false;
  const auto on_record = [&](const postgres::WalRecord& record) {
    if (record.start < risk.durable_end) return true;
    const auto event = postgres::event_of(record);
    found = event && event->kind == postgres::WalEvent::Kind::commit;
    return !found;
  };
  // From the last segment that both have, as a record may begin in it.
  const std::uint64_t first = (risk.durable_end.value - 1) / size.bytes;
  postgres::WalReader reader(Lsn{first * size.bytes}, size);
  // A server may have written for days without archiving, and all of it in one transaction.
  constexpr std::uint64_t most_bytes = 256 << 20;
  const std::uint64_t limit = first + std::max<std::uint64_t>(most_bytes / size.bytes, 2);
  for (std::uint64_t number = first; number * size.bytes < risk.server_end->value; ++number) {
    if (number == limit) return std::nullopt;
    const auto stored = system.coverage.segment_for(*history_, number);
    base::Bytes bytes;
    if (stored) {
      bytes = system.archive.get(postgres::file_name(*stored, size)).value_or(base::Bytes());
    } else {
      const postgres::Segment segment{history_->timeline_of_segment(number, size), number};
      const auto file = cluster_.data_directory / "pg_wal" / postgres::file_name(segment, size);
      try {
        bytes = base::read_existing_file(file);
      } catch (const Error&) {
        return std::nullopt;
      }
    }
    if (!reader.feed(bytes, on_record)) break;
  }
  if (found) return true;
  // Has everything been seen up to where the server writes, but for the header of a new page?
  constexpr std::uint64_t longest_header = 40;
  const Lsn next{(reader.end().value + 7) / 8 * 8};
  const bool begins_page = next.value % postgres::wal_page_size == 0;
  if (*risk.server_end <= Lsn{next.value + (begins_page ? longest_header : 0)}) return false;
  return std::nullopt;
}

void Look::judge() {
  Objective rpo{"rpo", false, {}, {}, {}, report_.risk.how};
  if (report_.rpo_objective) rpo.target = seconds_of(*report_.rpo_objective);
  if (report_.risk.age) rpo.measured = seconds_of(*report_.risk.age);
  if (rpo.target && rpo.measured) rpo.held = *report_.risk.age <= *report_.rpo_objective;
  report_.objectives.push_back(std::move(rpo));
  if (!report_.rpo_objective) return;
  const std::string wanted = base::to_string_short(*report_.rpo_objective);
  if (!report_.risk.age) {
    note(Level::bad, "rpo", fmt::format("rpo {} is not measured: {}", wanted, report_.risk.how));
  } else {
    const bool holds = *report_.risk.age <= *report_.rpo_objective;
    note(holds ? Level::good : Level::bad, "rpo",
         fmt::format("rpo {} {}: {} would be lost", wanted, holds ? "holds" : "is missed",
                     base::to_string_short(*report_.risk.age)),
         holds ? ""
               : "see whether archiving works and how often segments are archived "
                 "(archive_timeout)");
  }
}

}  // namespace

StatusReport find_status(const Configuration& configuration, const std::string& cluster) {
  return Look(configuration, cluster).run();
}

void find_those_behind(std::vector<StatusReport>& reports) {
  postgres::Lsn furthest;
  for (const StatusReport& report : reports) furthest = std::max(furthest, report.risk.durable_end);
  for (StatusReport& report : reports) {
    const std::uint64_t missing = furthest.value - report.risk.durable_end.value;
    if (missing == 0 || !report.risk.durable_end) continue;
    report.findings.note(Finding::Level::warning,
                         fmt::format("this repository is behind another one: it lacks {} of WAL",
                                     base::size_text(missing)),
                         "it catches up with the next WAL and the next `holdfast backup`",
                         "behind");
  }
}

}  // namespace holdfast::operations
