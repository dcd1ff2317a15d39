#include "operations/settle.h"

#include <fcntl.h>
#include <sys/file.h>

#include <ranges>
#include <set>

#include "base/error.h"
#include "base/process.h"
#include "mount/journal.h"
#include "mount/tree.h"
#include "operations/recovery_files.h"
#include "operations/restore_files.h"
#include "postgres/backup_label.h"
#include "postgres/recovery_settings.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

/// A shell command of the user's; its output is shown if it fails.
void run_command(const std::string& command) {
  if (!command.empty()) base::run_checked({{"sh", "-c", command}, {}, {}, {}, {}});
}

void replace_owned(const path& file, std::string_view text, const std::string& owner) {
  const path beside = file.string() + ".holdfast";
  base::replace_file(beside, base::view(text));
  give_to(beside, owner);
  base::fs::rename(beside, file);
}

/// What was only right as long as it was mounted.
void make_settings_ordinary(const InstantPlace& place, const InstantDescription& description) {
  const path settings = place.data() / "postgresql.auto.conf";
  const auto before = base::read_file(settings);
  if (before && postgres::find_setting(base::text(*before), mounted_setting)) {
    replace_owned(
        settings,
        postgres::edit_settings(base::text(*before), {std::string(mounted_setting)}, {}, ""),
        description.owner);
  }
  // A server that was never started has not read it yet.
  const path tablespace_map = place.data() / "tablespace_map";
  const auto map = base::read_file(tablespace_map);
  if (!map) return;
  auto tablespaces = postgres::parse_tablespace_map(base::text(*map));
  for (postgres::Tablespace& each : tablespaces) {
    const auto known = description.tablespaces.find(fmt::format("pg_tblspc/{}", each.oid));
    if (known != description.tablespaces.end()) each.location = known->second.string();
  }
  replace_owned(tablespace_map, postgres::write_tablespace_map(tablespaces), description.owner);
}

/// Trusts nobody's word that all is local.
void refuse_unfinished_files(const path& directory) {
  for (const auto& entry : base::fs::recursive_directory_iterator(directory)) {
    const auto status = base::status_of(entry.path(), false);
    if (status && S_ISREG(status->st_mode) && (status->st_mode & mount::unfinished_bit) != 0) {
      base::fail(Code::internal, "\"{}\" is not whole though it was said to be",
                 entry.path().string());
    }
  }
}

path local_path(const InstantPlace& place, const InstantDescription& description,
                const std::string& name) {
  for (const auto& [link, location] : description.tablespaces) {
    if (name.starts_with(link + "/")) return location / name.substr(link.size() + 1);
  }
  return place.data() / name;
}

/// Names of the backup's files, each ended by a zero byte.
base::Bytes names_of_files(const InstantPlace& place) {
  if (auto names = base::read_file(place.part("files"))) return *std::move(names);
  throw Error(Code::refused,
              fmt::format("cannot settle \"{}\": the list of its files is missing, which older "
                          "versions did not write",
                          place.directory.string()),
              fmt::format("`holdfast unmount {0}`, then `holdfast mount {0}`: that writes it; then "
                          "settle again",
                          place.directory.string()));
}

/// Every file of the backup is there, but for those that the server removed: whatever else came
/// near it.
void refuse_missing_files(const InstantPlace& place, const InstantDescription& description,
                          const base::Bytes& names) {
  const mount::Journal journal(place.part("journal"));
  const std::set<std::string>& removed = journal.opened_with().gone;
  for (const std::string_view text = base::text(names); auto part : std::views::split(text, '\0')) {
    const std::string name(part.begin(), part.end());
    if (name.empty() || removed.contains(name)) continue;
    if (base::status_of(local_path(place, description, name), false)) continue;
    if (name == "global/pg_control" && base::status_of(place.control())) continue;
    base::fail(Code::corrupt, "cannot settle \"{}\": {} is not there", place.directory.string(),
               name);
  }
}

/// The local directory takes the place of the mount point.
void move_into_place(const InstantPlace& place) {
  if (base::status_of(place.control())) {
    base::fs::rename(place.control(), place.data() / "global" / "pg_control");
    base::sync_directory(place.data() / "global");
  }
  base::sync_file_system(place.data());
  base::fs::remove(place.directory);  // the empty mount point
  base::fs::rename(place.data(), place.directory);
  base::sync_directory(place.directory.parent_path());
}

}  // namespace

SettleOutcome settle(const SettleRequest& request, base::Progress& progress) {
  const InstantPlace& place = request.place;
  const auto state = base::open_if_exists(place.state(), O_RDONLY | O_DIRECTORY);
  if (state && ::flock(state->get(), LOCK_EX | LOCK_NB) != 0) {
    base::fail(Code::busy, "cannot settle \"{}\": another one is at it", place.directory.string());
  }
  const InstantDescription description = existing_instant(place);
  const bool moved = !base::status_of(place.data());  // an earlier attempt came that far
  if (!moved && !instant_status(place).complete) {
    if (instant_status(place).paused) {
      throw Error(
          Code::refused,
          fmt::format("cannot settle \"{}\": its hydration is paused", place.directory.string()),
          fmt::format("`holdfast mount --resume {}`", place.directory.string()));
    }
    wait_until_hydrated(place, progress);
  }
  const base::Timestamp began = base::now();
  if (!moved) {
    const base::Bytes names = names_of_files(place);  // before anything is stopped
    progress.begin("settling", 0);
    run_command(request.stop);
    if (server_runs_on(place.data())) {
      throw Error(
          Code::refused,
          fmt::format("cannot settle \"{}\": a server is running on it", place.directory.string()),
          "all is local; stop the server and settle again, or say how with --stop and "
          "--start");
    }
    unmount_instant(place);
    refuse_unfinished_files(place.data());
    for (const auto& [link, location] : description.tablespaces) refuse_unfinished_files(location);
    refuse_missing_files(place, description, names);
    make_settings_ordinary(place, description);
    base::fs::remove_all(place.data() / mount::TreeOptions{}.linked_below);
    move_into_place(place);
  }
  base::fs::remove_all(place.state());
  run_command(request.start);
  return {base::now() - began};
}

}  // namespace holdfast::operations
