#include "operations/list.h"

#include <algorithm>

#include "base/error.h"
#include "operations/expire_survey.h"

namespace holdfast::operations {

using base::Code;
using base::Error;

namespace {

/// What `expire` would say of the backups, without reading their maps.
void add_retention(const Site& site, Listing& listing) {
  const base::Timestamp now = base::now();
  const Survey seen = survey(site);
  const RetentionInput input = seen.retention(site.configuration.keep, now);
  for (const repository::Pin& pin : input.pins) {
    if (!pin.holds_at(now)) continue;
    listing.pins.push_back(pin);
    if (pin.readable) continue;
    listing.warnings.push_back(fmt::format(
        "a pin of backup {} cannot be read: it holds until `holdfast unpin`", pin.backup.text));
  }
  listing.decisions = decide_retention(input);
}

}  // namespace

Listing list(const Site& site) {
  Catalog catalog = read_catalog(site);
  Listing listing;
  listing.systems = known_systems(site, catalog);
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    auto recorded = repository::Gaps(site.repository, {site.cluster.name, system}).list();
    std::ranges::move(recorded.gaps, std::back_inserter(listing.gaps));
    for (const std::string& name : recorded.unreadable) {
      listing.warnings.push_back(fmt::format("\"{}\" is not as it was written", name));
    }
  }
  for (const SystemView& system : view_systems(site, catalog)) {
    const auto missing = system.coverage.missing_histories();
    for (const postgres::Timeline timeline : system.coverage.timelines()) {
      const bool no_history = std::ranges::find(missing, timeline) != missing.end();
      listing.timelines.push_back({timeline, system.place.system_id, no_history});
      if (!no_history) continue;
      listing.warnings.push_back(fmt::format("{} is missing: timeline {} cannot be followed",
                                             postgres::history_file_name(timeline),
                                             timeline.value));
    }
    const auto history = system.coverage.history(system.coverage.timelines().back());
    if (!history) continue;
    std::vector<RecoveryWindow> windows;
    try {
      windows = recovery_windows(system, *history);
    } catch (const Error& error) {
      // The backups are listed all the same; what cannot be read is a finding here.
      if (error.code() != Code::corrupt) throw;
      listing.warnings.push_back(fmt::format(
          "cannot tell the recovery window: {}; run `holdfast verify`", error.message()));
    }
    for (RecoveryWindow& window : windows) {
      if (window.ends_in_hole) listing.warnings.push_back(why_it_ends(window));
      listing.windows.push_back(std::move(window));
    }
  }
  add_retention(site, listing);
  for (const UnreadableBackup& backup : catalog.unreadable) listing.warnings.push_back(backup.why);
  for (const BackupInfo& backup : catalog.backups) {
    if (!backup.is_suspect()) continue;
    listing.warnings.push_back(
        fmt::format("backup {} is suspect: {}; a new backup is compared "
                    "with it by content",
                    backup.id.text, backup.suspicion));
  }
  listing.backups = std::move(catalog.backups);
  listing.unreadable = std::move(catalog.unreadable);
  return listing;
}

}  // namespace holdfast::operations
