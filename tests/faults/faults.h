#pragma once

// What the fault tests share: ways to hurt a repository, a disk or a process, and to look at what
// is left. Nothing here waits for a time to pass: it waits for something to be so.

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>

#include <functional>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/hash.h"
#include "harness/harness.h"
#include "operations/catalog.h"

namespace holdfast::tests {

inline int status_of(base::Code code) {
  return base::info(code).exit_status;
}

/// Whom servers and holdfast run as.
inline std::optional<base::User> server_user_if_root() {
  return base::running_as_root() ? postgres::server_user() : std::nullopt;
}

/// Polls until `condition` holds; fails loudly after a minute.
inline void await(const std::function<bool()>& condition, const std::string& what) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) throw std::runtime_error("in vain for: " + what);
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

/// A holdfast command that runs while the test does something to it.
class Running {
 public:
  Running(const Place& place, const std::vector<std::string>& arguments,
          const std::vector<std::pair<std::string, std::string>>& environment = {})
      : log_(place.path(fmt::format("log.{}", ++count_))),
        child_(command(place, arguments, environment), log_) {}

  pid_t pid() const { return child_.pid(); }
  bool over() { return child_.finished().has_value(); }
  void signal(int number) const { child_.signal(number); }
  int wait() { return child_.wait(); }
  /// The exit status, or nothing if it is still running then.
  std::optional<int> wait_for(std::chrono::milliseconds limit) { return child_.wait_for(limit); }
  /// Everything that it printed so far.
  std::string said() const {
    const auto bytes = base::read_file(log_);
    return std::string(bytes ? base::text(*bytes) : "");
  }

  static base::Command command(
      const Place& place, const std::vector<std::string>& arguments,
      const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    base::Command command;
    command.argv = {holdfast_binary().string(), "--config", place.configuration().string()};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    command.directory = place.path();
    command.environment = environment;
    command.user = server_user_if_root();
    return command;
  }

 private:
  static inline int count_ = 0;
  fs::path log_;
  base::Child child_;
};

/// A shell command line as the user that holdfast runs as; "$H" is holdfast with its configuration.
inline Result shell(const Place& place, const std::string& line,
                    const std::vector<std::pair<std::string, std::string>>& environment = {}) {
  base::Command command = Running::command(place, {}, environment);
  command.environment.emplace_back("H", fmt::format("{} --config {}", holdfast_binary().string(),
                                                    place.configuration().string()));
  command.argv = {"/bin/bash", "-c", line};
  const base::Outcome outcome = base::run(command);
  return {outcome.status, outcome.output, outcome.errors};
}

/// The directory of the one system in the repository of a place.
inline fs::path system_directory(const Place& place) {
  for (const auto& each : fs::directory_iterator(place.repository() / "clusters" / "main")) {
    return each.path();
  }
  throw std::runtime_error("no system is registered");
}

/// Regular files below `directory`, sorted; none if it is not there.
inline std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> found;
  if (!fs::exists(directory)) return found;
  for (const auto& each : fs::recursive_directory_iterator(directory)) {
    if (each.is_regular_file()) found.push_back(each.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// Waits until a backup is in the middle of storing pages.
inline void await_growing_pack(const Place& place, Running& backup) {
  await(
      [&] {
        if (backup.over()) throw std::runtime_error("it ended before: " + backup.said());
        for (const fs::path& each : files_below(place.repository() / ".tmp")) {
          std::error_code gone;
          if (fs::file_size(each, gone) > 256 << 10 && !gone) return true;
        }
        return false;
      },
      "a pack that grows");
}

/// Objects of one kind ("packs", "maps", "backups", "wal"), sorted: the newest last.
inline std::vector<fs::path> objects(const Place& place, std::string_view kind) {
  return files_below(system_directory(place) / kind);
}

/// Everything that a restore could get wrong about a tree: names, kinds, modes, contents.
inline std::map<std::string, std::string> tree(const fs::path& root) {
  std::map<std::string, std::string> all;
  for (const auto& each : fs::recursive_directory_iterator(root)) {
    const auto mode = static_cast<unsigned>(each.symlink_status().permissions());
    std::string what = fmt::format("{:o} ", mode);
    if (each.is_symlink()) {
      what += "-> " + fs::read_symlink(each.path()).string();
    } else if (each.is_regular_file()) {
      const base::Bytes bytes = base::read_existing_file(each.path());
      const base::Hash128 hash = base::hash128(bytes);
      what += fmt::format("{} bytes {:x}{:x}", bytes.size(), hash.low, hash.high);
    }
    all[each.path().lexically_relative(root).string()] = what;
  }
  return all;
}

/// A server could be started here: that needs global/pg_control.
inline bool is_startable(const fs::path& directory) {
  return fs::exists(directory / "global" / "pg_control");
}

inline bool is_empty_or_absent(const fs::path& directory) {
  return !fs::exists(directory) || fs::is_empty(directory);
}

/// One file, hurt for a while: the destructor puts its bytes back.
class Damage {
 public:
  explicit Damage(fs::path file)
      : file_(std::move(file)), bytes_(base::read_existing_file(file_)) {}
  ~Damage() {
    if (fs::exists(aside())) fs::rename(aside(), file_);
    write(bytes_);
  }
  Damage(const Damage&) = delete;
  Damage& operator=(const Damage&) = delete;

  std::uint64_t size() const { return bytes_.size(); }
  void flip(std::uint64_t offset) const {
    base::Bytes changed = bytes_;
    changed.at(offset) ^= 1;
    write(changed);
  }
  void cut(std::uint64_t size) const { fs::resize_file(file_, size); }
  void remove() const { fs::rename(file_, aside()); }

 private:
  /// Outside of the repository, so that nobody takes it for an object.
  fs::path aside() const {
    return test_directory() / fmt::format("holdfast-aside.{}.{}", ::getpid(), number_);
  }
  /// In place: whose file it is stays as it is.
  void write(base::View bytes) const {
    const base::Fd file = base::open_file(file_, O_WRONLY | O_TRUNC);
    base::write_all(file, bytes, file_);
  }
  static inline int count_ = 0;
  int number_ = ++count_;
  fs::path file_;
  base::Bytes bytes_;
};

/// The backups that are committed, the oldest first.
inline std::vector<std::string> backup_ids(const Place& place) {
  std::vector<std::string> ids;
  const Result listed = place.holdfast({"list", "--json"});
  if (listed.status != 0 && listed.status != status_of(base::Code::corrupt)) {
    throw std::runtime_error("list failed: " + listed.errors);
  }
  const nlohmann::json document = listed.json();
  for (const auto& each : document.at("backups")) ids.push_back(each.at("id"));
  return ids;
}

/// Starts a cluster again and tells the configuration where it listens now.
inline void start_again(const Place& place, Cluster& cluster) {
  const std::string before = cluster.connection();
  cluster.start();
  std::string text(base::text(base::read_existing_file(place.configuration())));
  const std::size_t at = text.find(before);
  if (at == std::string::npos) throw std::runtime_error("the configuration has another connection");
  text.replace(at, before.size(), cluster.connection());
  base::replace_file(place.configuration(), base::view(text), 0644);
}

/// Promises INV-1 of all that is there: whatever is committed verifies.
inline void expect_all_verifies(const Place& place) {
  const Result verified = place.holdfast({"verify", "--json"});
  if (verified.status == status_of(base::Code::not_found)) return;  // no backup at all
  // The archiver may be behind a backup that stored its own WAL; then verify sees a hole for a
  // while.
  EXPECT_TRUE(verified.status == 0 || verified.status == status_of(base::Code::check_failed))
      << verified.errors;
  const nlohmann::json report = verified.json();
  for (const auto& each : report.at("backups")) {
    EXPECT_EQ(each.at("restorable"), true) << each.dump(1);
  }
}

/// A small file system of its own, so that it can be full. Needs root or user namespaces.
class SmallDisk {
 public:
  SmallDisk(const Place& place, const fs::path& where, const std::string& size) : where_(where) {
    fs::create_directories(where);
    if (::mount("tmpfs", where.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) {
      throw std::runtime_error(
          "could not mount a small disk: run these tests as root, or under "
          "`unshare --map-root-user --mount`");
    }
    fs::permissions(where, fs::perms(0700));
    place.give_to_server_user(where);
  }
  ~SmallDisk() { ::umount2(where_.c_str(), MNT_DETACH); }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  void grow(const std::string& size) const {
    if (::mount("tmpfs", where_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + size).c_str()) != 0) {
      throw std::runtime_error("could not make room");
    }
  }
  std::uint64_t used() const {
    const fs::space_info space = fs::space(where_);
    return space.capacity - space.free;
  }

 private:
  fs::path where_;
};

}  // namespace holdfast::tests
