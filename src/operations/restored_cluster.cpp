#include "operations/restored_cluster.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "operations/backup.h"
#include "operations/doctor.h"
#include "operations/instant_mount.h"
#include "operations/old_cluster.h"
#include "operations/recovery_start.h"
#include "postgres/control_file.h"
#include "postgres/data_directory.h"
#include "postgres/recovery_settings.h"
#include "postgres/server.h"
#include "postgres/tablespaces_in_place.h"
#include "postgres/wal_segment.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

void give_like(const path& file, const path& model) {
  const auto status = base::status_of(model);
  if (!base::running_as_root() || !status) return;
  if (::chown(file.c_str(), status->st_uid, status->st_gid) != 0) {
    base::fail_errno(fmt::format("give \"{}\" to its owner", file.string()), errno);
  }
}

/// A promotion removes recovery.signal first, and takes the control file to the new timeline last:
/// one that was killed in between is made to happen again. Else the server would go on writing on
/// the old timeline. False if it was promoted.
bool recover_again(const path& directory, postgres::Timeline timeline) {
  const postgres::ControlFile control = postgres::read_control_file(directory).control;
  if (std::max(control.timeline, control.min_recovery_timeline) > timeline) return false;
  const path signal = directory / "recovery.signal";
  if (base::status_of(signal)) return true;
  base::replace_file(signal, {});
  give_like(signal, directory);
  base::sync_directory(directory);
  return true;
}

bool holds_nothing(const path& directory) {
  const auto names = base::directory_names(directory);
  return !names || names->empty();
}

std::chrono::seconds seconds_of(base::Microseconds limit) {
  return std::chrono::ceil<std::chrono::seconds>(limit);
}

/// Where packages configure the server below /etc, that stays the one configuration: the one that
/// the restore made, so that a server can start from this directory alone, has done its work. What
/// the old directory had under these names is the user's.
void leave_one_configuration(const Recovery& recovery) {
  if (!packaged_cluster(recovery.directory)) return;
  const auto automatic = base::read_file(recovery.directory / "postgresql.auto.conf");
  for (const char* each : {"postgresql.conf", "pg_hba.conf", "pg_ident.conf", "holdfast.config"}) {
    const std::string name = each;
    // Certificates that ALTER SYSTEM names are there.
    if (automatic && base::text(*automatic).find(name + "/") != std::string_view::npos) continue;
    const path aside = recovery.directory / (name + ".unused");
    const bool is_users =
        !recovery.old_directory.empty() && base::status_of(recovery.old_directory / name, false);
    if (base::status_of(aside, false)) {
      base::fs::rename(aside, recovery.directory / name);
    } else if (!is_users) {
      base::fs::remove_all(recovery.directory / name);
    }
  }
  base::sync_directory(recovery.directory);
}

/// Where the timeline began on which the cluster is now.
postgres::Lsn beginning_of(postgres::Timeline timeline, const path& data_directory) {
  const path file = data_directory / "pg_wal" / postgres::history_file_name(timeline);
  const postgres::TimelineHistory history(timeline, base::text(base::read_existing_file(file)));
  if (history.switches().empty()) base::fail(Code::corrupt, "\"{}\" is empty", file.string());
  return history.switches().back().at;
}

}  // namespace

path restored_tablespace(const Recovery& recovery, const repository::LinkedDirectory& link) {
  if (holds_nothing(link.location)) return link.location;
  // Where they were they still are, and the old cluster is kept.
  return path(fmt::format("{}.tablespaces-{}", recovery.directory.string(), recovery.id)) /
         link.path.substr(link.path.rfind('/') + 1);
}

namespace {

/// Others of such a name wait to be written, and hold what they were before.
bool begins_as(const path& file, postgres::Segment segment, postgres::SegmentSize size) {
  constexpr std::size_t page = 8192;
  try {
    const base::Fd opened = base::open_file(file, O_RDONLY);
    base::Bytes bytes(page);
    bytes.resize(base::read_at(opened, bytes, 0, file));
    return postgres::parse_segment_header(bytes).address == postgres::start_of(segment, size);
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::vector<path> unarchived_wal(const Site& site, const RestorePlan& plan, const path& old) {
  std::vector<path> files;
  if (old.empty()) return files;
  const path from = old / "pg_wal";
  const repository::WalArchive archive(site.repository, plan.backup.place);
  for (const std::string& name : base::directory_names(from).value_or(std::vector<std::string>{})) {
    const auto parsed = postgres::parse_wal_file_name(name);
    if (!parsed || parsed->kind != postgres::WalFileName::Kind::segment) continue;
    const auto segment = parsed->segment(plan.backup.segment_size);
    if (!segment || segment->timeline != plan.history.timeline()) continue;
    if (postgres::end_of(*segment, plan.backup.segment_size) < plan.backup.stop) continue;
    if (archive.has(name)) continue;
    if (begins_as(from / name, *segment, plan.backup.segment_size)) files.push_back(from / name);
  }
  return files;
}

/// The first repository that can.
template <typename Work>
auto RestoredCluster::with_site(Work work) {
  for (std::size_t i = 0;; ++i) {
    const Configuration& each = context_.repositories.at(i);
    try {
      site_.emplace(open_site(each, context_.recovery().cluster));
      return work(*site_);
    } catch (const Error& error) {
      const bool last = i + 1 == context_.repositories.size();
      if (last || error.code() == Code::usage || error.code() == Code::interrupted) throw;
      context_.progress.warn("{} (repository {})", error.message(), each.repository().name);
    }
  }
}

Prospect RestoredCluster::prospect() const {
  RestoredCluster here(context_);
  return here.with_site([&](const Site& site) {
    RestorePlan plan = plan_restore(site, context_.recovery().request);
    auto obstacles = find_obstacles(context_, site, plan);
    return Prospect{std::move(plan), std::move(obstacles)};
  });
}

StepResult RestoredCluster::choose() {
  Recovery& recovery = context_.recovery();
  const RestorePlan plan =
      with_site([&](const Site& site) { return plan_restore(site, context_.recovery().request); });
  recovery.backup = plan.backup.id.text;
  recovery.system_id = plan.backup.place.system_id;
  recovery.target = to_string(plan.target);
  for (const std::string& note : plan.notes) context_.progress.warn("{}", note);
  return {false, fmt::format("backup {} of {}, to {}", recovery.backup,
                             base::to_string(plan.backup.stopped), recovery.target)};
}

StepResult RestoredCluster::restore() {
  Recovery& recovery = context_.recovery();
  RestoreOptions options;
  options.directory = recovery.directory;
  options.request = recovery.request;
  options.request.backup = recovery.backup;
  options.workers = context_.workers;
  options.instant = recovery.instant;
  const InstantPlace instant = instant_place(recovery.directory);
  if (read_instant(instant)) {
    // Of an earlier try; nobody has used it yet.
    discard_instant(instant);
  } else if (!holds_nothing(recovery.directory)) {
    if (recovery.at(RecoveryStep::restore).tries < 2) {
      throw Error(
          Code::refused,
          fmt::format("cannot restore into \"{}\": it is not empty", recovery.directory.string()),
          "empty it, or name another one: [recover] directory");
    }
    options.delta = true;
    options.instant = false;
  }
  if (recovery.tablespaces.empty()) {
    // Where they were they may still be.
    recovery.tablespaces = with_site([&](const Site& site) {
      std::vector<std::string> places;
      const RestorePlan plan = plan_restore(site, options.request);
      const auto map =
          repository::Backups(site.repository, plan.backup.place).read_map(plan.backup.id);
      for (const repository::LinkedDirectory& link : map.links) {
        const path place = restored_tablespace(recovery, link);
        if (place == link.location) continue;
        places.push_back(
            fmt::format("{}={}", link.path.substr(link.path.rfind('/') + 1), place.string()));
      }
      return places;
    });
    context_.journal.save();
  }
  options.tablespaces = recovery.tablespaces;
  options.replayed = RestoreOptions::Replayed::spare;
  options.spare_tablespaces = recovery.directory.string() + ".tablespaces-" + recovery.id;
  const RestoreOutcome outcome =
      restore_from_any(context_.repositories, recovery.cluster, options, context_.progress);
  for (const std::string& note : outcome.notes) context_.progress.warn("{}", note);
  std::string found =
      fmt::format("{} in {} files {} {}", base::size_text(outcome.files.bytes), outcome.files.files,
                  outcome.instant ? "are mounted at" : "are in", recovery.directory.string());
  if (outcome.plan.target.kind == RecoveryTarget::Kind::latest) {
    with_site([&](const Site& site) {
      found += rescue_wal(site, outcome.plan);
      return 0;
    });
  }
  return {false, found};
}

namespace {

/// A file in pg_wal may be one that waits to be written, and holds what it was before.
bool is_segment(base::View bytes, const postgres::WalFileName& name, const BackupInfo& backup) {
  try {
    return postgres::check_segment(bytes, name, postgres::parse_segment_header(bytes).system_id)
               .size == backup.segment_size;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

/// A server in recovery reads its own pg_wal where the archive has nothing.
std::string RestoredCluster::rescue_wal(const Site& site, const RestorePlan& plan) {
  const Recovery& recovery = context_.recovery();
  const path to = recovery.directory / "pg_wal";
  const repository::WalArchive archive(site.repository, plan.backup.place);
  std::size_t count = 0;
  for (const path& from : unarchived_wal(site, plan, recovery.old_directory)) {
    const auto parsed = postgres::parse_wal_file_name(from.filename().string()).value();
    const auto segment = parsed.segment(plan.backup.segment_size).value();
    auto bytes = base::read_file(from);
    if (!bytes || !is_segment(*bytes, parsed, plan.backup)) continue;
    // As `wal fetch` hands it on: a tablespace that it makes has its place in the old cluster.
    const auto neighbour = [&](std::uint64_t number) {
      const std::string other =
          postgres::file_name({segment.timeline, number}, plan.backup.segment_size);
      auto found = archive.get(other);
      return found ? std::move(found) : base::read_file(from.parent_path() / other);
    };
    postgres::put_tablespaces_in_place(*bytes, {[&] { return neighbour(segment.number - 1); },
                                                [&] { return neighbour(segment.number + 1); }});
    base::replace_file(to / from.filename(), *bytes);
    give_like(to / from.filename(), recovery.directory);
    ++count;
  }
  if (count == 0) return {};
  base::sync_file_system(to);
  return fmt::format("; {} WAL files that were not archived came from the old directory", count);
}

void RestoredCluster::run_closed() {
  if (closed_) return;
  const Recovery& recovery = context_.recovery();
  mount_if_instant(recovery.directory);
  // After a death of ours it may still be ending.
  stop_server(recovery.directory, std::chrono::minutes(1));
  with_site([&](const Site& site) {
    RestoreRequest request = recovery.request;
    request.backup = recovery.backup;
    closed_ = ScratchCluster::on_restored(site, plan_restore(site, request), recovery.directory,
                                          context_.journal.directory());
    witnesses_ = read_witnesses(site, closed_->plan(), closed_->map());
    return 0;
  });
  context_.progress.begin("replaying WAL", 0);
  promoted_before_ = !recover_again(recovery.directory, closed_->plan().history.timeline());
  closed_->start(witnesses_.superuser(),
                 seconds_of(context_.settings().limit(RecoveryStep::replay)));
}

StepResult RestoredCluster::replay() {
  Recovery& recovery = context_.recovery();
  run_closed();
  const bool again = promoted_before_;  // then an earlier try died right behind that
  postgres::Recovered reached = closed_->server().recovered();
  const postgres::Lsn begins = beginning_of(reached.timeline, recovery.directory);
  if (again) reached.replayed = begins;
  const TargetExpectation expected = expect_target(*site_, closed_->plan());
  Checked target = check_target(expected, reached);
  recovery.checks = {target.check};
  if (target.check.outcome == CheckOutcome::failed) {
    throw Error(Code::check_failed, target.check.found,
                "`holdfast recover --undo` goes back; then choose another target with --to");
  }
  recovery.timeline = reached.timeline.value;
  recovery.lsn = postgres::to_string(begins);
  Loss loss =
      measure_loss(context_.configuration(), closed_->plan().target, recovery.begun, *closed_);
  recovery.rpo = loss.time;
  recovery.rpo_how = again && !loss.time ? "not measured: replay was interrupted" : loss.how;
  if (loss.check) recovery.checks.push_back(loss.check->check);
  return {false,
          fmt::format("replayed to {}; timeline {} begins there", recovery.lsn, recovery.timeline)};
}

StepResult RestoredCluster::prove() {
  run_closed();
  Recovery& recovery = context_.recovery();
  using std::chrono::milliseconds;
  const LookRequest how{milliseconds(2000), milliseconds(2000), milliseconds(3000),
                        context_.workers};
  const std::size_t before = recovery.at(RecoveryStep::prove).tries > 1
                                 ? std::min<std::size_t>(recovery.checks.size(), 1)
                                 : recovery.checks.size();
  recovery.checks.resize(before);
  std::string failures;
  std::size_t passed = 0;
  for (Checked& each : look_closely(*site_, *closed_, witnesses_, how, context_.progress)) {
    if (each.check.outcome == CheckOutcome::passed) ++passed;
    if (each.check.outcome == CheckOutcome::failed) {
      failures +=
          fmt::format("{}{}: {}", failures.empty() ? "" : "; ", each.check.name, each.check.found);
      for (const std::string& detail : each.details) context_.progress.warn("{}", detail);
    }
    recovery.checks.push_back(std::move(each.check));
  }
  if (!failures.empty()) {
    throw Error(Code::check_failed, "the restored cluster is not what it should be: " + failures,
                "nothing was opened. `holdfast recover --undo` goes back, then choose another "
                "target with --to; to go on all the same: --resume --skip prove");
  }
  return {false, fmt::format("{} checks passed", passed)};
}

void RestoredCluster::close() {
  if (closed_) closed_->stop();
  closed_.reset();
}

void RestoredCluster::set_up_archiving() {
  const path& directory = context_.recovery().directory;
  const path file = directory / "postgresql.auto.conf";
  const auto before = base::read_file(file);
  const std::string edited = postgres::edit_settings(
      before ? base::text(*before) : "", postgres::recovery_setting_names(),
      {{"archive_mode", "on"},
       {"archive_command", archive_command(context_.configuration(), context_.recovery().cluster)}},
      fmt::format("Written by holdfast recover {}", context_.recovery().id));
  if (before && base::text(*before) == edited) return;
  // The owner must be right before the name is.
  const path beside = directory / "postgresql.auto.conf.holdfast";
  base::replace_file(beside, base::view(edited));
  give_like(beside, directory);
  base::fs::rename(beside, file);
  base::sync_directory(directory);
}

std::string RestoredCluster::connection(const RecoveryContext& context) {
  const std::string& own = context.settings().connection;
  return own.empty() ? context.cluster().connection : own;
}

StepResult RestoredCluster::open() {
  close();
  const Recovery& recovery = context_.recovery();
  const base::Microseconds limit = context_.settings().limit(RecoveryStep::start);
  std::string& why = context_.waits_for;
  why = "it does not answer";
  const auto is_open = [&] {
    try {
      postgres::Session session(connection(context_));
      const std::string system = postgres::to_string(session.system_id());
      const std::string timeline =
          session.value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
      why = fmt::format("system {} on timeline {} answers there", system,
                        std::stoul(timeline, nullptr, 16));
      return system == recovery.system_id && std::stoul(timeline, nullptr, 16) == recovery.timeline;
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      why = error.message();
      return false;
    }
  };
  // What runs and is not reached is the closed server of an earlier try, which ends with it.
  if (!server_process(recovery.directory) || !is_open()) {
    stop_server(recovery.directory, std::chrono::minutes(1));
    if (!context_.cluster().data_directory.empty()) set_up_archiving();
    leave_one_configuration(recovery);
    start_server(context_, recovery.directory, limit);
  }
  // Refused for who we are, it will be so the next time, too.
  const auto is_final = [&] {
    return std::ranges::any_of(
        std::array{"password", "pg_hba.conf", "authentication failed", "does not exist"},
        [&](const char* words) { return why.find(words) != std::string::npos; });
  };
  bool open = false;
  const bool known = await_step(limit, [&] {
    open = is_open();
    return open || (server_process(recovery.directory) && is_final());
  });
  if (known && open) {
    return {false, fmt::format("it serves system {} on timeline {}", recovery.system_id,
                               recovery.timeline)};
  }
  throw Error(Code::check_failed, fmt::format("the restored cluster cannot be reached: {}", why),
              "[recover] connection says where it is, [recover.command] start how it is started");
}

/// With a cluster that is where it was restored to.
std::vector<Configuration> RestoredCluster::following_configurations() const {
  std::vector<Configuration> all = context_.repositories;
  for (Configuration& each : all) {
    for (ClusterConfiguration& cluster : each.clusters) {
      if (cluster.name != context_.recovery().cluster) continue;
      if (!cluster.data_directory.empty()) cluster.data_directory = context_.recovery().directory;
      cluster.connection = connection(context_);
    }
  }
  return all;
}

StepResult RestoredCluster::back_up() {
  Recovery& recovery = context_.recovery();
  const auto all = following_configurations();
  std::string made;
  std::optional<Error> failure;
  for (const Configuration& each : all) {
    try {
      const Site site = open_site(each, recovery.cluster);
      const Catalog catalog = read_catalog(site);
      const bool there = std::ranges::any_of(catalog.backups, [&](const BackupInfo& backup) {
        return backup.place.system_id == recovery.system_id &&
               backup.timeline.value == recovery.timeline && backup.stopped > recovery.begun;
      });
      if (there) {
        if (made.empty()) made = catalog.backups.back().id.text;
        continue;
      }
      BackupRequest request;
      request.label = "holdfast recover " + recovery.id;
      request.workers = context_.workers;
      const BackupInfo backup = take_backup(site, request, context_.progress);
      if (made.empty()) made = backup.id.text;
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      context_.progress.warn("repository {}: {}", each.repository().name, error.message());
      failure = error;
    }
  }
  if (made.empty() && failure) throw Error(*failure);
  recovery.new_backup = made;
  return {false, fmt::format("backup {} is on timeline {}", made, recovery.timeline)};
}

}  // namespace holdfast::operations
