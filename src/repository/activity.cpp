#include "repository/activity.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::repository {

namespace {

void see(std::optional<base::Timestamp>& newest, store::ObjectStore& store,
         const std::string& object) {
  try {
    const auto found = store.stat(object);
    if (found) newest = std::max(newest.value_or(found->written), found->written);
  } catch (const base::Error&) {  // it tells nothing
  }
}

/// The names of backups begin with their time; one that was not committed says nothing.
std::optional<base::Timestamp> newest_backup(store::ObjectStore& store,
                                             const std::string& directory) {
  std::optional<base::Timestamp> newest;
  const auto names = store.names(directory);
  for (auto each = names.rbegin(); each != names.rend() && !newest; ++each) {
    see(newest, store, directory + "/" + *each + "/backup.json");
  }
  return newest;
}

/// The last segment of each timeline, or the last slice of the one that is being written.
std::optional<base::Timestamp> newest_wal(store::ObjectStore& store, const std::string& directory) {
  std::optional<base::Timestamp> newest;
  for (const std::string& timeline : store.names(directory)) {
    if (timeline.size() != 8) continue;
    const auto files = store.names(directory + "/" + timeline);
    if (files.empty()) continue;
    const std::string last = directory + "/" + timeline + "/" + files.back();
    if (!last.ends_with(".d")) {
      see(newest, store, last);
      continue;
    }
    const auto slices = store.names(last);
    if (!slices.empty()) see(newest, store, last + "/" + slices.back());
    const auto whole = std::find_if(files.rbegin(), files.rend(),
                                    [](const std::string& each) { return !each.ends_with(".d"); });
    if (whole != files.rend()) see(newest, store, directory + "/" + timeline + "/" + *whole);
  }
  return newest;
}

}  // namespace

base::Timestamp Activity::last() const {
  return std::max(backup.value_or(base::Timestamp{}), wal.value_or(base::Timestamp{}));
}

Activity activity_of(store::ObjectStore& store, const ClusterPlace& place) {
  Activity found;
  try {
    found.backup = newest_backup(store, place.directory() + "/backups");
    found.wal = newest_wal(store, place.directory() + "/wal");
  } catch (const base::Error&) {  // a directory that cannot be read tells nothing, either
  }
  return found;
}

}  // namespace holdfast::repository
