#include "operations/restore.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>

#include "base/beneath.h"
#include "base/error.h"
#include "base/process.h"
#include "mount/fuse_mount.h"
#include "operations/instant_mount.h"
#include "operations/recovery_files.h"
#include "operations/replay_survey.h"
#include "operations/tablespace_places.h"
#include "postgres/control_file.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

/// Stands in a directory while it is being restored, and names the backup.
constexpr std::string_view marker = "holdfast.restore";
constexpr std::string_view marker_system = "system ";

bool holds_nothing(const path& directory) {
  const auto names = base::directory_names(directory);
  return !names || names->empty();
}

/// What is beside the directory under the name of an instant restore's state. Who wants it paused
/// from the beginning may say so there before.
void refuse_foreign_state(const InstantPlace& place) {
  const auto names = base::directory_names(place.state());
  const auto is_other = [](const std::string& name) { return name != "paused"; };
  if (names && std::ranges::any_of(*names, is_other)) existing_instant(place);  // says what it is
}

/// A restore died before its marker had its name: there is nothing else yet.
bool holds_only_a_marker(const path& directory) {
  const auto names = base::directory_names(directory);
  return names && std::ranges::all_of(
                      *names, [](const std::string& name) { return name.starts_with(marker); });
}

void check_directory(const path& directory, bool delta) {
  if (read_instant(instant_place(directory))) {
    throw Error(
        Code::refused,
        fmt::format("cannot restore into \"{}\": it is an instant restore", directory.string()),
        fmt::format("`holdfast mount {0}` goes on with it, `holdfast unmount --discard {0}` "
                    "removes it",
                    directory.string()));
  }
  const auto status = base::status_of(directory);
  if (!status) return;
  if (!S_ISDIR(status->st_mode)) {
    throw Error(
        Code::refused,
        fmt::format("cannot restore into \"{}\": it is not a directory", directory.string()),
        "choose a directory that is empty or does not exist");
  }
  if (holds_nothing(directory)) return;
  const auto unfinished = base::read_file(directory / marker);
  if (!delta) {
    throw Error(Code::refused,
                fmt::format("cannot restore into \"{}\": it is not empty", directory.string()),
                unfinished ? "it holds an unfinished restore; --delta finishes it"
                           : "choose another directory, or use --delta to make this one right: all "
                             "in it that the backup does not have is removed");
  }
  if (server_runs_on(directory)) {
    throw Error(
        Code::refused,
        fmt::format("cannot restore into \"{}\": a server is running on it", directory.string()),
        "stop it first");
  }
  // --delta removes what the backup does not have, so it must not be let loose on a home directory.
  if (!unfinished && !holds_only_a_marker(directory) &&
      !base::status_of(directory / "PG_VERSION")) {
    base::fail(Code::refused,
               "cannot restore into \"{}\": it is neither empty nor a data directory",
               directory.string());
  }
}

class RestoreRun {
 public:
  RestoreRun(const Site& site, const RestoreOptions& options, RestorePlan plan,
             base::Progress& progress)
      : site_(site),
        options_(options),
        plan_(std::move(plan)),
        progress_(progress),
        backups_(site.repository, plan_.backup.place),
        directory_(base::fs::absolute(options.directory).lexically_normal()) {
    if (!directory_.has_filename()) directory_ = directory_.parent_path();
    if (!options_.instant) return;
    const auto why_not = mount::cannot_mount();
    instant_ = !why_not;
    if (why_not) notes_.push_back("not an instant restore but an ordinary one: " + *why_not);
  }

  RestoreOutcome run() {
    const base::Timestamp begun = base::now();
    check_directory(directory_, options_.delta);
    check_system();
    map_ = backups_.read_map(plan_.backup.id);
    survey();
    place_tablespaces();
    claim();
    const bool was_empty = holds_nothing(directory_);
    try {
      if (instant_) {
        mount_files();
      } else {
        make_unstartable();
        files_ = restore_files(
            site_.repository, backups_, map_,
            {directory_, places_.of_backup, links_, options_.delta, options_.workers}, progress_);
      }
      link_replayed();
      configuration_ = write_recovery_files(
          site_, plan_, map_, {directory_, seen_tablespaces(), options_.action, instant_, limits_});
      if (options_.durable) make_durable();
      finish();
    } catch (...) {
      const bool goes_on = options_.remains != nullptr && !options_.remains->empty();
      if ((was_empty && !options_.delta) || goes_on) leave();
      throw;
    }
    RestoreOutcome outcome{std::move(plan_), directory_,          files_,
                           instant_,         base::now() - begun, std::move(notes_)};
    outcome.notes.insert(outcome.notes.end(), outcome.plan.notes.begin(), outcome.plan.notes.end());
    outcome.notes.insert(outcome.notes.end(), configuration_.notes.begin(),
                         configuration_.notes.end());
    return outcome;
  }

 private:
  void check_system() const;
  void check_links();
  void survey();
  void place_tablespaces();
  void claim();
  void link_replayed() const;
  void make_unstartable();
  void mount_files();
  std::map<std::string, path> seen_tablespaces() const;
  void make_durable();
  void finish();
  void leave();

  const Site& site_;
  const RestoreOptions& options_;
  RestorePlan plan_;
  base::Progress& progress_;
  repository::Backups backups_;
  path directory_;
  repository::BackupMap map_;
  std::vector<repository::LinkedDirectory> replayed_;  ///< that WAL makes and leaves
  TablespacePlaces places_;
  bool has_state_ = false;         ///< of an instant restore: it is ours
  std::vector<base::Fd> claimed_;  ///< what it writes to, locked
  std::set<std::string> links_;    ///< of the cluster's own directory: they stay
  RestoreFilesResult files_;
  postgres::ServerLimits limits_;
  RestoredConfiguration configuration_;
  bool instant_ = false;
  std::vector<std::string> notes_;
};

/// A stopped cluster looks like one that is to be replaced, whichever it is.
void RestoreRun::check_system() const {
  if (!options_.delta) return;
  std::string there;
  if (const auto unfinished = base::read_file(directory_ / marker)) {
    const std::string text(base::text(*unfinished));
    const std::size_t line = text.find(marker_system);
    if (line != std::string::npos) {
      there = text.substr(line + marker_system.size());
      there.resize(std::min(there.find('\n'), there.size()));
    }
  } else {
    try {
      if (base::status_of(directory_ / "global" / "pg_control")) {
        there = postgres::to_string(postgres::read_control_file(directory_).control.system_id);
      }
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;  // it is no cluster any more
    }
  }
  if (there.empty() || there == plan_.backup.place.system_id || there == options_.replace_system) {
    return;
  }
  throw Error(
      Code::refused,
      fmt::format("cannot restore backup {} of system {} into \"{}\": what is there is of "
                  "system {}",
                  plan_.backup.id.text, plan_.backup.place.system_id, directory_.string(), there),
      "choose another directory; if that cluster may go: --replace-system " + there);
}

/// Those that WAL makes up to the target come below the restored directory without a place of
/// their own if they are dropped again, or if that was asked for.
void RestoreRun::survey() {
  progress_.begin("reading WAL", 0);
  ReplaySurvey found;
  try {
    found = survey_replay(site_, plan_, map_, options_.workers);
  } catch (const Error& error) {
    if (error.code() != Code::corrupt) throw;
    // Replay will not get past that either; what it makes before comes into the directory itself.
    notes_.push_back("the WAL up to the target cannot be read: " + error.message());
  }
  limits_ = found.limits;
  if (options_.replayed == RestoreOptions::Replayed::in_place) return;
  std::map<std::string, std::string> made;
  for (const postgres::TablespaceRecord& record : found.tablespaces) {
    const std::string link = fmt::format("pg_tblspc/{}", record.oid);
    if (!record.creates) {
      made.erase(link);
    } else if (!record.location.empty()) {
      made[link] = record.location;
    }
  }
  for (const repository::LinkedDirectory& link : map_.links) made.erase(link.path);
  for (const auto& [link, location] : made) replayed_.push_back({link, location});
}

void RestoreRun::place_tablespaces() {
  places_ = choose_places({directory_, site_.cluster.data_directory, replayed_}, options_, map_);
}

/// Of two that want the same directory or place at once one gets it.
void RestoreRun::claim() {
  const auto lock = [this](const path& directory) {
    base::make_directories(directory);
    claimed_.push_back(base::open_file(directory, O_RDONLY | O_DIRECTORY));
    if (::flock(claimed_.back().get(), LOCK_EX | LOCK_NB) == 0) return;
    base::fail(Code::busy, "cannot restore into \"{}\": another restore is at work there",
               directory.string());
  };
  lock(directory_);
  for (const Places* each : {&places_.of_backup, &places_.of_replay}) {
    for (const auto& [link, place] : *each) lock(place);
  }
  // What was there before may be another one's by now.
  check_directory(directory_, options_.delta);
  check_system();
  place_tablespaces();
  check_links();
}

/// What a link in the directory leads to may be anybody's, and would be written over and cleared.
/// Tablespaces have places of their own. In the cluster's own directory the user may have put
/// something elsewhere (pg_wal); what is there is the link's owner's, then.
void RestoreRun::check_links() {
  if (!options_.delta) return;
  std::error_code failed;
  const bool own = !site_.cluster.data_directory.empty() &&
                   base::fs::equivalent(directory_, site_.cluster.data_directory, failed);
  for (const repository::DirectoryEntry& each : map_.directories) {
    if (places_.of_backup.contains(each.path)) continue;
    path here = directory_ / each.path;
    for (const auto& [link, place] : places_.of_backup) {
      if (each.path.starts_with(link + "/")) here = place / each.path.substr(link.size() + 1);
    }
    const auto status = base::status_of(here, false);
    if (!status || !S_ISLNK(status->st_mode)) continue;
    const auto there = base::status_of(here);
    if (own && there && there->st_uid == status->st_uid && !is_used_by_a_server(here, directory_)) {
      links_.insert(each.path);
      continue;
    }
    throw Error(Code::refused,
                fmt::format("cannot restore into \"{}\": \"{}\" is a link to \"{}\", and nothing "
                            "proves that what is there belongs to it",
                            directory_.string(), here.string(),
                            base::fs::read_symlink(here, failed).string()),
                "remove the link: what it stands for is made in its place");
  }
}

/// Replay finds these links and goes through them: `wal fetch` takes the places out of the WAL
/// (FetchRequest::tablespaces_in_place).
void RestoreRun::link_replayed() const {
  const std::string owner = owner_of_directory(map_);
  for (const auto& [link, place] : places_.of_replay) {
    // Of an earlier try: replay begins anew.
    const auto top = base::Beneath(place);
    for (const std::string& name : top.names("")) {
      if (name.starts_with("PG_")) top.remove_all(name);
    }
    top.set_mode("", 0700);
    give_to(place, owner);
    base::fs::create_symlink(place, directory_ / link);
    give_to(directory_ / link, owner);
  }
}

void RestoreRun::make_unstartable() {
  base::make_directories(directory_);
  const path control = directory_ / "global" / "pg_control";
  if (base::fs::remove(control)) base::sync_directory(control.parent_path());
  base::replace_file(directory_ / marker,
                     base::view(fmt::format("{}\n{}{}\n", plan_.backup.id.text, marker_system,
                                            plan_.backup.place.system_id)));
  note_places(directory_, places_, owner_of_directory(map_));
}

void RestoreRun::mount_files() {
  progress_.begin("mounting", 0);
  const std::string owner = owner_of_directory(map_);
  const InstantPlace place = instant_place(directory_);
  base::make_directories(directory_);
  // In the end the local directory is renamed to it.
  if (base::status_of(directory_)->st_dev != base::status_of(directory_.parent_path())->st_dev) {
    throw Error(Code::refused,
                fmt::format("cannot mount a backup at \"{}\": it is a file system of its own",
                            directory_.string()),
                fmt::format("choose a directory in it: {}", (directory_ / "data").string()));
  }
  std::vector<path> of_replay;
  for (const auto& [link, location] : places_.of_replay) of_replay.push_back(location);
  refuse_foreign_state(place);
  has_state_ = true;
  prepare_instant(place,
                  {plan_.backup.id, plan_.backup.place, site_.configuration.repository().name,
                   site_.configuration.path, places_.of_backup, of_replay, owner, options_.keeper},
                  map_);
  note_places(place.data(), places_, owner);
  start_mount_process(place);
  for (const repository::ShardReference& shard : map_.shards) {
    files_.files += shard.files;
    files_.bytes += shard.bytes;
  }
}

/// Where the restored server finds its tablespaces for now.
std::map<std::string, path> RestoreRun::seen_tablespaces() const {
  if (!instant_) return places_.of_backup;
  std::map<std::string, path> seen;
  for (const auto& [link, location] : places_.of_backup) {
    seen[link] = directory_ / mount::TreeOptions{}.linked_below / link.substr(link.rfind('/') + 1);
  }
  return seen;
}

void RestoreRun::make_durable() {
  progress_.begin("making it durable", 0);
  base::sync_file_system(instant_ ? instant_place(directory_).state() : directory_);
  for (const auto& [link, location] : places_.of_backup) base::sync_file_system(location);
}

void RestoreRun::finish() {
  const repository::Attachment* control = map_.attachment("pg_control");
  if (control == nullptr) base::fail(Code::corrupt, "the backup's map holds no pg_control");
  const base::Beneath top(directory_);
  top.remove(std::string(marker));
  // The owner must be right before the name is.
  const std::string beside = "global/pg_control.holdfast";
  top.remove(beside);
  const base::Fd file = top.open(beside, O_WRONLY | O_CREAT | O_EXCL);
  base::write_all(file, postgres::without_checkpoint(control->content), top.full(beside));
  base::sync_file(file, top.full(beside));
  if (const auto owner = base::find_owner(owner_of_directory(map_));
      owner && base::running_as_root()) {
    top.set_owner(beside, owner->first, owner->second);
  }
  top.rename(beside, "global/pg_control");
  top.sync_names("global");
  top.sync_names("");
}

/// The directories were empty before, so all in them is ours.
void RestoreRun::leave() {
  if (instant_) {
    const InstantPlace place = instant_place(directory_);
    if (!has_state_) return;
    try {
      discard_instant(place);
    } catch (const Error&) {  // what went wrong first is what the user hears
    }
    return;
  }
  std::vector<path> ours{directory_};
  for (const Places* each : {&places_.of_backup, &places_.of_replay}) {
    for (const auto& [link, location] : *each) ours.push_back(location);
  }
  if (options_.remains == nullptr) return empty_directories(ours);
  options_.remains->insert(options_.remains->end(), ours.begin(), ours.end());
}

}  // namespace

void empty_directories(const std::vector<path>& directories) {
  std::error_code ignored;
  for (const path& directory : directories) {
    for (const auto& entry : base::fs::directory_iterator(directory, ignored)) {
      base::fs::remove_all(entry.path(), ignored);
    }
  }
}

RestoreOutcome restore(const Site& site, const RestoreOptions& options, base::Progress& progress) {
  progress.begin("choosing a backup", 0);
  if (options.action != "promote" && options.action != "pause" && options.action != "shutdown") {
    throw Error(Code::usage, fmt::format("cannot use \"{}\" as an action", options.action),
                "use promote, pause or shutdown");
  }
  if (options.directory.empty()) {
    throw Error(Code::usage, "cannot restore into a directory without a name",
                "choose a directory that is empty or does not exist");
  }
  if (options.instant && options.delta) {
    base::fail(Code::usage,
               "cannot make an instant restore with --delta: it needs a directory of its own");
  }
  return RestoreRun(site, options, plan_restore(site, options.request), progress).run();
}

}  // namespace holdfast::operations
