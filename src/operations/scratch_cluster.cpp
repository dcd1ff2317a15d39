#include "operations/scratch_cluster.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/error.h"
#include "base/ownership.h"
#include "mount/fuse_mount.h"
#include "operations/instant_mount.h"
#include "postgres/backup_label.h"
#include "repository/backups.h"

namespace holdfast::operations {

namespace {

using base::Code;
using Path = base::fs::path;

constexpr std::string_view prefix = "holdfast-scratch-";
constexpr const char* lock_name = ".running";

/// Ends a mount that may be there. What it made of tablespaces is in the place, too.
void discard_mount(const Path& data_directory) {
  const InstantPlace instant = instant_place(data_directory);
  if (read_instant(instant)) unmount_instant(instant);
}

/// The lock of a place; nullopt if somebody else has it, or if it is not there.
std::optional<base::Fd> lock_of(const Path& place, int flags) {
  auto file = base::open_if_exists(place / lock_name, O_RDWR | flags);
  if (!file || ::flock(file->get(), LOCK_EX | LOCK_NB) != 0) return std::nullopt;
  return file;
}

/// What fetches WAL ahead may still be at work for a moment, and add a file.
void remove_all_of(const Path& path) {
  for (int left = 100;; --left) {
    std::error_code failed;
    base::fs::remove_all(path, failed);
    if (!failed) return;
    if (left == 0 || failed != std::errc::directory_not_empty) {
      base::fail_errno(fmt::format("remove \"{}\"", path.string()), failed.value());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

/// Where a cluster has its files besides its data directory: behind the links that are there, or
/// that its server will make.
std::vector<Path> places_of(const Path& data_directory) {
  std::vector<Path> places;
  const auto add = [&](const Path& place) {
    std::error_code failed;
    const Path real = base::fs::canonical(place, failed);
    if (!failed && base::fs::is_directory(real)) places.push_back(real);
  };
  add(data_directory / "pg_wal");
  const Path links = data_directory / "pg_tblspc";
  for (const auto& name : base::directory_names(links).value_or(std::vector<std::string>{})) {
    add(links / name);
  }
  const auto map = base::read_file(data_directory / "tablespace_map");
  if (!map) return places;
  for (const auto& each : postgres::parse_tablespace_map(base::text(*map))) add(each.location);
  return places;
}

void check_inside(const std::vector<Path>& places, const Path& parent) {
  const Path place = base::fs::canonical(parent);
  for (const Path& each : places) {
    const auto inside = std::mismatch(place.begin(), place.end(), each.begin(), each.end());
    if (inside.first == place.end()) continue;
    base::fail(Code::refused,
               "cannot start what was brought back in \"{}\": a link in it leads to \"{}\"",
               place.string(), each.string());
  }
}

/// The lock goes last: what has none is not swept.
void empty_place(const Path& place, const std::vector<std::string>& spared) {
  bool empty = true;
  for (const auto& name : base::directory_names(place).value_or(std::vector<std::string>{})) {
    if (std::ranges::find(spared, name) != spared.end()) {
      empty = false;
    } else if (name != lock_name) {
      remove_all_of(place / name);
    }
  }
  base::fs::remove(place / lock_name);
  if (empty) base::fs::remove(place);
}

}  // namespace

ScratchPlace::ScratchPlace(const Path& parent, const std::string& name)
    : path_(parent / fmt::format("{}{}", prefix, name)) {
  base::make_directories_for_owner(parent, 0700);
  // Nobody sweeps a place that is made but not yet locked.
  const base::Fd gate = base::open_file(parent, O_RDONLY | O_DIRECTORY);
  ::flock(gate.get(), LOCK_EX);
  sweep(parent);
  base::make_directories(path_, 0700);
  lock_ = base::open_file(path_ / lock_name, O_RDWR | O_CREAT);
  ::flock(lock_.get(), LOCK_EX | LOCK_NB);
  const auto user = base::running_as_root() ? postgres::server_user() : std::nullopt;
  if (user && ::chown(path_.c_str(), user->uid, user->gid) != 0) {
    base::fail_errno(fmt::format("give \"{}\" to {}", path_.string(), user->name), errno);
  }
}

void ScratchPlace::sweep(const Path& parent) {
  for (const auto& name : base::directory_names(parent).value_or(std::vector<std::string>{})) {
    if (!name.starts_with(prefix)) continue;
    try {
      const auto dead = lock_of(parent / name, 0);
      if (!dead) continue;
      discard_mount(parent / name / "data");
      empty_place(parent / name, {});
      ++swept_;
    } catch (const std::exception&) {
      // Another user's: not ours to remove.
    }
  }
}

void ScratchPlace::clear(const std::vector<std::string>& spared) {
  empty_place(path_, spared);
}

ScratchCluster::ScratchCluster(const Site& site, RestorePlan plan, Path place)
    : site_(site),
      plan_(std::move(plan)),
      place_(std::move(place)),
      data_directory_(place_ / "data") {
  map_ = repository::Backups(site.repository, plan_.backup.place).read_map(plan_.backup.id);
}

std::unique_ptr<ScratchCluster> ScratchCluster::on_restored(const Site& site, RestorePlan plan,
                                                            Path data_directory, Path place) {
  auto cluster = std::make_unique<ScratchCluster>(site, std::move(plan), std::move(place));
  cluster->data_directory_ = std::move(data_directory);
  cluster->stays_ = true;
  return cluster;
}

void ScratchCluster::check_space() const {
  struct statvfs room {};
  if (::statvfs(place_.c_str(), &room) != 0) {
    base::fail_errno("find out how much room there is in \"" + place_.string() + "\"", errno);
  }
  const std::uint64_t free = std::uint64_t{room.f_bavail} * room.f_frsize;
  // Some for WAL, and for what replay adds.
  const std::uint64_t needed = plan_.backup.bytes + plan_.backup.bytes / 20 + (256 << 20);
  if (free >= needed) return;
  throw base::Error(
      Code::no_space,
      fmt::format("cannot bring backup {} back in \"{}\": it needs {}, and {} are free",
                  plan_.backup.id.text, place_.string(), base::size_text(needed),
                  base::size_text(free)),
      "make room, or name another directory: [drill] directory");
}

void ScratchCluster::bring_back(const RestoreRequest& request, unsigned workers,
                                base::Progress& progress, bool to_stay) {
  mounted_ = !to_stay && !mount::cannot_mount();
  if (!mounted_) check_space();
  RestoreOptions options;
  options.instant = mounted_;
  options.keeper = ::getpid();
  options.directory = data_directory();
  options.request = request;
  options.request.backup = plan_.backup.id.text;
  options.workers = workers;
  options.durable = false;
  options.replayed = RestoreOptions::Replayed::in_place;
  // Where they were they may still be, and in use.
  for (const repository::LinkedDirectory& link : map_.links) {
    const std::string oid = link.path.substr(link.path.rfind('/') + 1);
    options.tablespaces.push_back(
        fmt::format("{}={}", oid, (place_ / "tablespaces" / oid).string()));
  }
  plan_ = restore(site_, options, progress).plan;
}

/// WAL is fetched by a command of the server's, in its cage; a key may come from anywhere.
base::Cage::Connections ScratchCluster::needed_connections() const {
  const bool asks_for_keys =
      std::ranges::any_of(site_.configuration.repositories,
                          [](const auto& each) { return !each.key.key_command.empty(); });
  return asks_for_keys ? base::Cage::Connections::any : base::Cage::Connections::none;
}

std::vector<std::string> ScratchCluster::gaps() const {
  std::vector<std::string> gaps = base::cage_gaps();
  if (needed_connections() == base::Cage::Connections::any) {
    gaps.emplace_back("connections can be made, as key_command may need them");
  }
  return gaps;
}

void ScratchCluster::start(const std::string& superuser, std::chrono::seconds limit) {
  postgres::ScratchOptions options;
  options.superuser = superuser;
  options.system = plan_.backup.place.system_id;
  // Not the place itself: what we write there as root, nobody may put a link in the way of.
  options.writable = places_of(data_directory());
  if (!stays_) {
    check_inside(options.writable, place_);
    // Beside a cluster that stays there may be directories that only we can enter.
    options.place = place_;
  }
  options.connections = needed_connections();
  options.log = log();
  options.limit = limit;
  options.durable = stays_;
  server_.emplace(data_directory(), options);
}

void ScratchCluster::stop() {
  using Mode = postgres::Server::StopMode;
  if (server_) server_->stop(stays_ ? Mode::fast : Mode::immediate);
  server_.reset();
  if (std::exchange(mounted_, false)) discard_mount(data_directory());
}

ScratchCluster::~ScratchCluster() {
  try {
    stop();
  } catch (const std::exception&) {
    // The mount ends with this process, and the next scratch place removes what is left.
  }
}

}  // namespace holdfast::operations
