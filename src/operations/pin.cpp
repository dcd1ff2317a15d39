#include "operations/pin.h"

#include "base/error.h"
#include "repository/lease.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using repository::BackupId;
using repository::ClusterPlace;
using repository::Pin;
using repository::Pins;

[[noreturn]] void refuse_without_reason() {
  throw Error(Code::usage, "cannot pin a backup without a reason",
              "say in --reason what it is kept for, as in --reason \"before v2\"");
}

[[noreturn]] void refuse_unknown(const Site& site, const std::string& backup) {
  throw Error(Code::not_found,
              fmt::format("cannot find backup \"{}\" of cluster {}", backup, site.cluster.name),
              "`holdfast list` shows the backups");
}

/// Where the backup is. One that cannot be read is there, too: it is worth a pin above all.
ClusterPlace place_of(const Site& site, const std::string& backup) {
  if (!repository::is_backup_id(backup)) refuse_unknown(site, backup);
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    const repository::Backups backups(site.repository, {site.cluster.name, system});
    if (site.repository.store().stat(backups.object_name({backup}, "backup.json"))) {
      return backups.place();
    }
  }
  refuse_unknown(site, backup);
}

/// `expire` looks for pins after it has marked a backup, and this looks for the mark after it has
/// pinned it: one of them sees the other (TRAPS GC10).
void check_still_there(const Site& site, const ClusterPlace& place, const Pin& pin) {
  store::ObjectStore& store = site.repository.store();
  const repository::Backups backups(site.repository, place);
  if (store.stat(backups.object_name(pin.backup, "expired.json"))) {
    // Busy: expire is at it. If we get the lease it died there, and the next one respects the pin.
    const repository::Lease lease(site.repository, place, "backup");
  }
  if (!store.stat(backups.object_name(pin.backup, "backup.json"))) {
    refuse_unknown(site, pin.backup.text);
  }
}

Pin pin_at(const Site& site, const ClusterPlace& place, const BackupId& backup,
           base::Timestamp until, const std::string& reason) {
  const base::Timestamp now = base::now();
  if (until <= now) {
    throw Error(Code::usage,
                fmt::format("cannot pin a backup until {}: that is not in the future",
                            base::to_string(until)),
                "a pin that is over holds nothing");
  }
  const Pins pins(site.repository, place);
  const Pin pin = pins.add(backup, now, until, reason);
  try {
    check_still_there(site, place, pin);
  } catch (const Error&) {
    pins.take_back(pin);
    throw;
  }
  return pin;
}

}  // namespace

Pin pin_backup(const Site& site, const std::string& backup, base::Timestamp until,
               const std::string& reason) {
  if (reason.empty()) refuse_without_reason();  // before anything is looked for
  return pin_at(site, place_of(site, backup), {backup}, until, reason);
}

std::vector<Pin> unpin_backup(const Site& site, const std::string& backup) {
  const ClusterPlace place = place_of(site, backup);
  const Pins pins(site.repository, place);
  const base::Timestamp now = base::now();
  std::vector<Pin> held = pins.of({backup});
  std::erase_if(held, [&](const Pin& pin) { return !pin.holds_at(now); });
  if (held.empty()) {
    throw Error(Code::not_found, fmt::format("cannot unpin backup {}: it is not pinned", backup),
                "`holdfast list` shows the pins");
  }
  for (const Pin& pin : held) pins.release(pin, now);
  return held;
}

Snapshot take_snapshot(const Site& site, const BackupRequest& request, base::Microseconds keep,
                       const std::string& reason, base::Progress& progress) {
  if (reason.empty()) refuse_without_reason();
  const BackupInfo backup = take_backup(site, request, progress);
  try {
    return {backup, pin_at(site, backup.place, backup.id, base::now() + keep, reason)};
  } catch (const Error& error) {
    throw Error(
        error.code(),
        fmt::format("took backup {}, but could not pin it: {}", backup.id.text, error.message()),
        fmt::format("pin it with `holdfast pin {} --for 30d --reason ...`", backup.id.text));
  }
}

}  // namespace holdfast::operations
