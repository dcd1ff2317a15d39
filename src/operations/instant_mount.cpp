#include "operations/instant_mount.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "mount/fuse_mount.h"
#include "mount/hydrator.h"
#include "operations/repositories.h"
#include "operations/restore_files.h"
#include "repository/pins.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::fs::path;
using nlohmann::json;

/// As long as it is mounted its backup must stay, and for so long when it is not any more.
constexpr auto pinned_for = std::chrono::hours(24 * 30);
constexpr auto scratch_pinned_for = std::chrono::hours(24);
constexpr auto pinned_again_after = std::chrono::hours(6);
/// Of the file `progress`: always as long, so that it can be written when the disk is full.
constexpr std::size_t progress_bytes = 4096;
/// The description's name until all is there, and from the moment on when it begins to go: a death
/// in between leaves nothing that could be taken for an instant restore.
constexpr std::string_view going = "going";

void replace_json(const path& name, const json& document) {
  base::replace_file(name, base::view(document.dump(2) + "\n"));
}

/// The whole file, for writing.
struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

std::string pin_reason(const InstantPlace& place) {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("instant restore in {} on {}", place.directory.string(), host.data());
}

/// The process that serves one instant restore.
class InstantServer {
 public:
  explicit InstantServer(const InstantPlace& place)
      : place_(place), description_(existing_instant(place)) {}

  /// Calls `ready` when it serves; returns when it is told to stop.
  void run(const std::function<void()>& ready) {
    take_lock();
    raise_open_files();
    ::umask(0);  // the kernel has applied that of whoever creates something
    mount::clear_stale_mount(place_.directory);
    const auto configurations =
        each_repository(read_configuration(description_.configuration), {description_.repository});
    const Site site = open_site(configurations.front(), description_.place.cluster);
    const repository::Backups backups(site.repository, description_.place);
    const mount::Image image(backups, description_.backup);
    mount::PageSource source(site.repository, description_.place.directory());
    mount::Tree tree(image, source, tree_options());
    mount::FuseMount mounted(tree, place_.directory, [this](const auto& error) { log(error); });
    pin(site, true);
    // The signals that end it are for the thread that serves.
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int each : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&signals, each);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::jthread beside([&](const std::stop_token& stop) {
      if (description_.keeper) {
        end_with_keeper(site, stop);
      } else {
        hydrate(site, image, tree, source, stop);
      }
    });
    ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    ready();
    mounted.serve();
    beside.request_stop();
    beside.join();
    if (description_.keeper) {
      pin(site, false);
    } else {
      tree.checkpoint();
    }
  }

 private:
  void take_lock() {
    lock_ = base::open_file(place_.part("lock"), O_RDWR | O_CREAT);
    struct flock lock = whole_file();
    if (::fcntl(lock_.get(), F_SETLK, &lock) != 0) {
      base::fail(Code::busy, "cannot mount \"{}\": another process serves it",
                 place_.directory.string());
    }
  }

  static void raise_open_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);  // what is possible is enough for most
  }

  mount::TreeOptions tree_options() const {
    mount::TreeOptions options;
    options.local = place_.data();
    options.journal = place_.part("journal");
    options.mounted = place_.directory;
    options.aside = "global/pg_control";
    options.aside_local = place_.control();
    options.direct = "pg_wal";
    options.linked = description_.tablespaces;
    // A starting server believes that syncing the file system syncs everything (fd.c,
    // SyncDataDirectory); for FUSE the kernel does nothing then. So it is done when the server
    // takes its lock, before that.
    options.barrier = "postmaster.pid";
    return options;
  }

  void hydrate(const Site& site, const mount::Image& image, mount::Tree& tree,
               const mount::PageSource& source, const std::stop_token& stop) {
    if (base::status_of(place_.part("complete")) && base::status_of(place_.part("files"))) return;
    try {
      mount::Hydrator hydrator(site.repository, description_.place.directory(), image, tree,
                               source);
      bool complete = false;
      hydrator.run(
          stop, [this] { return base::status_of(place_.part("paused")).has_value(); },
          [&](const mount::Hydrator::Progress& progress) {
            say(progress);
            keep_pinned(site);
            complete = progress.complete;
          });
      while (complete && !stop.stop_requested()) {
        if (declare_complete(image)) return pin(site, false);
        std::this_thread::sleep_for(std::chrono::seconds(1));
      }
    } catch (const base::Error& error) {
      log(error);
    }
  }

  /// False if it cannot be written down, as on a full disk.
  bool declare_complete(const mount::Image& image) {
    try {
      const path files = place_.part("files");
      const base::Fd out = base::open_file(files, O_WRONLY | O_CREAT | O_TRUNC);
      for (std::size_t i = 0; i < image.map().shards.size(); ++i) {
        std::string names;
        for (const repository::FileEntry& entry : image.shard(i)->files) {
          names.append(entry.path).push_back('\0');
        }
        base::write_all(out, base::view(names), files);
      }
      base::sync_file(out, files);
      base::replace_file(place_.part("complete"), base::view("everything is local\n"));
      return true;
    } catch (const base::Error& error) {
      log(error);
      const InstantStatus told = instant_status(place_);
      say({told.done, told.total, false, error.message()});
      return false;
    }
  }

  /// Ends this process when the one that the mount is for has ended.
  void end_with_keeper(const Site& site, const std::stop_token& stop) {
    const base::Fd keeper(static_cast<int>(::syscall(SYS_pidfd_open, *description_.keeper, 0)));
    while (!stop.stop_requested()) {
      pollfd ended{keeper.get(), POLLIN, 0};
      if (!keeper || ::poll(&ended, 1, 200) > 0) {
        ::kill(::getpid(), SIGTERM);
        return;
      }
      keep_pinned(site);
    }
  }

  /// For who asks for the status; nothing depends on it.
  void say(const mount::Hydrator::Progress& progress) {
    try {
      const std::string trouble = progress.trouble.substr(0, progress_bytes / 8);
      std::string text =
          json{{"done", progress.done}, {"total", progress.total}, {"trouble", trouble}}.dump(
              -1, ' ', true, json::error_handler_t::replace);
      text.resize(progress_bytes, ' ');
      const path name = place_.part("progress");
      base::write_at(base::open_file(name, O_WRONLY | O_CREAT), base::view(text), 0, name);
    } catch (const std::exception&) {
    }
  }

  void keep_pinned(const Site& site) {
    if (std::chrono::steady_clock::now() - pinned_ >= pinned_again_after) pin(site, true);
  }

  void pin(const Site& site, bool hold) {
    pinned_ = std::chrono::steady_clock::now();
    try {
      const repository::Pins pins(site.repository, description_.place);
      const std::string reason = pin_reason(place_);
      const base::Timestamp now = base::now();
      const auto before = pins.of(description_.backup);
      const auto span = description_.keeper ? scratch_pinned_for : pinned_for;
      if (hold) pins.add(description_.backup, now, now + span, reason);
      for (const repository::Pin& pin : before) {
        if (pin.reason == reason) pins.release(pin, now);
      }
    } catch (const base::Error& error) {
      log(error.with_context("pinning the backup"));
    }
  }

  /// The same message over and over (a store that is down) is written once a second.
  void log(const base::Error& error) {
    const std::lock_guard lock(log_mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (error.message() == last_message_ && now - last_logged_ < std::chrono::seconds(1)) return;
    last_message_ = error.message();
    last_logged_ = now;
    try {
      const path name = place_.part("log");
      base::write_all(
          base::open_file(name, O_WRONLY | O_CREAT | O_APPEND),
          base::view(fmt::format("{} {}\n", base::to_iso(base::now()), error.message())), name);
    } catch (const base::Error&) {  // the disk is full: the status says so
    }
  }

  const InstantPlace& place_;
  const InstantDescription description_;
  base::Fd lock_;
  std::mutex log_mutex_;
  std::string last_message_;
  std::chrono::steady_clock::time_point last_logged_;
  std::chrono::steady_clock::time_point pinned_;
};

/// What the serving process tells the one that started it.
struct Starting {
  const InstantPlace& place;
  int tell;
};

void serve_in_background(void* argument) {
  const auto& starting = *static_cast<Starting*>(argument);
  const path working = "/";
  base::fs::current_path(working);
  const auto tell = [&](const json& what) {
    const std::string text = what.dump();
    [[maybe_unused]] const ssize_t written = ::write(starting.tell, text.data(), text.size());
    ::close(starting.tell);
  };
  bool ready = false;
  try {
    InstantServer(starting.place).run([&] {
      ready = true;
      tell({{"ready", true}});
    });
  } catch (const base::Error& error) {
    if (ready) throw;
    tell({{"error", base::info(error.code()).name},
          {"message", error.message()},
          {"hint", error.hint()}});
  }
}

[[noreturn]] void throw_told(const json& told) {
  for (const base::CodeInfo& each : base::all_codes()) {
    if (each.name == told.value("error", "")) {
      throw base::Error(each.code, told.value("message", ""), told.value("hint", ""));
    }
  }
  base::fail(Code::internal, "the process that should serve the mount said: {}", told.dump());
}

}  // namespace

InstantPlace instant_place(const path& directory) {
  if (directory.empty()) {
    throw base::Error(Code::usage, "cannot tell which directory is meant: its name is empty",
                      "name the directory that was restored");
  }
  path absolute = base::fs::absolute(directory).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  return {absolute};
}

bool server_runs_on(const path& directory) {
  // The first line of postmaster.pid is the process of the server on a data directory.
  const auto bytes = base::read_file(directory / "postmaster.pid");
  if (!bytes) return false;
  const std::string_view text = base::text(*bytes);
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  return pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM);
}

namespace {

void write_description(const InstantPlace& place, const InstantDescription& description) {
  json tablespaces = json::object();
  for (const auto& [link, location] : description.tablespaces) tablespaces[link] = location;
  replace_json(place.part(going), {{"version", 1},
                                   {"backup", description.backup.text},
                                   {"cluster", description.place.cluster},
                                   {"system", description.place.system_id},
                                   {"repository", description.repository},
                                   {"configuration", description.configuration},
                                   {"tablespaces", tablespaces},
                                   {"of_replay", description.of_replay},
                                   {"owner", description.owner},
                                   {"keeper", description.keeper.value_or(0)}});
}

std::optional<InstantDescription> read_description(const path& file) {
  const auto bytes = base::read_file(file);
  if (!bytes) return std::nullopt;
  try {
    const json document = json::parse(base::text(*bytes));
    InstantDescription read;
    read.backup.text = document.at("backup");
    read.place = {document.at("cluster"), document.at("system")};
    read.repository = document.at("repository");
    read.configuration = document.at("configuration").get<std::string>();
    for (const auto& [link, location] : document.at("tablespaces").items()) {
      read.tablespaces[link] = location.get<std::string>();
    }
    for (const auto& each : document.value("of_replay", json::array())) {
      read.of_replay.emplace_back(each.get<std::string>());
    }
    read.owner = document.at("owner");
    if (const pid_t keeper = document.at("keeper"); keeper != 0) read.keeper = keeper;
    return read;
  } catch (const json::exception&) {
    base::fail(Code::corrupt, "\"{}\" does not say what an instant restore says", file.string());
  }
}

}  // namespace

void prepare_instant(const InstantPlace& place, const InstantDescription& description,
                     const repository::BackupMap& map) {
  const auto make = [](const path& directory, mode_t mode, const std::string& owner) {
    base::make_directories(directory, 0700);
    base::fs::permissions(directory, static_cast<base::fs::perms>(mode));
    give_to(directory, owner);
  };
  mode_t top_mode = 0700;
  for (const repository::DirectoryEntry& each : map.directories) {
    if (each.path == "global") top_mode = each.mode;
  }
  // A server reaches pg_wal through it.
  make(place.state(), 0711, description.owner);
  write_description(place, description);
  base::replace_file(place.part("progress"), base::view(std::string(progress_bytes, ' ')));
  make(place.data(), top_mode, description.owner);
  const path links = place.data() / mount::TreeOptions{}.linked_below;
  if (!description.tablespaces.empty()) make(links, top_mode, description.owner);
  for (const repository::DirectoryEntry& each : map.directories) {
    const auto linked = description.tablespaces.find(each.path);
    if (linked == description.tablespaces.end()) {
      path local = place.data() / each.path;
      for (const auto& [link, location] : description.tablespaces) {
        if (each.path.starts_with(link + "/")) local = location / each.path.substr(link.size() + 1);
      }
      make(local, each.mode, each.owner);
      continue;
    }
    make(linked->second, each.mode, each.owner);
    make(links / each.path.substr(each.path.rfind('/') + 1), each.mode, each.owner);
    base::make_directories((place.data() / each.path).parent_path());
    base::fs::create_symlink(linked->second, place.data() / each.path);
    give_to(place.data() / each.path, each.owner);
  }
  base::fs::rename(place.part(going), place.part("description"));
  base::sync_directory(place.state());
}

std::optional<InstantDescription> read_instant(const InstantPlace& place) {
  return read_description(place.part("description"));
}

InstantDescription existing_instant(const InstantPlace& place) {
  auto found = read_instant(place);
  if (found) return *found;
  if (base::status_of(place.part(going))) {
    throw base::Error(
        Code::refused,
        fmt::format("cannot use \"{}\": what is in \"{}\" is left of an instant restore that was "
                    "not finished, or not wholly removed",
                    place.directory.string(), place.state().string()),
        fmt::format("`holdfast unmount --discard {}` removes it", place.directory.string()));
  }
  const auto names = base::directory_names(place.state());
  if (names && !names->empty() && *names != std::vector<std::string>{"paused"}) {
    throw base::Error(Code::refused,
                      fmt::format("cannot use \"{}\": what is in \"{}\" is of no instant restore",
                                  place.directory.string(), place.state().string()),
                      "choose another directory, or move that one away");
  }
  throw base::Error(
      Code::not_found, fmt::format("\"{}\" is not an instant restore", place.directory.string()),
      fmt::format("`holdfast restore {} --instant` makes one", place.directory.string()));
}

std::optional<pid_t> serving_process(const InstantPlace& place) {
  const auto file = base::open_if_exists(place.part("lock"), O_RDWR);
  if (!file) return std::nullopt;
  struct flock lock = whole_file();
  if (::fcntl(file->get(), F_GETLK, &lock) != 0) {
    base::fail_errno(fmt::format("look at \"{}\"", place.part("lock").string()), errno);
  }
  if (lock.l_type == F_UNLCK) return std::nullopt;
  return lock.l_pid;
}

InstantStatus instant_status(const InstantPlace& place) {
  InstantStatus status;
  status.mounted = serving_process(place).has_value();
  status.complete = base::status_of(place.part("complete")).has_value();
  status.paused = base::status_of(place.part("paused")).has_value();
  const auto bytes = base::read_file(place.part("progress"));
  const json told = bytes ? json::parse(base::text(*bytes), nullptr, false) : json();
  if (told.is_object()) {
    status.done = told.value("done", std::uint64_t{0});
    status.total = told.value("total", std::uint64_t{0});
    status.trouble = told.value("trouble", "");
  }
  return status;
}

void mount_again(const InstantPlace& place) {
  existing_instant(place);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) base::fail_errno("make a pipe", errno);
  const base::Fd told(ends[0]);
  Starting starting{place, ends[1]};
  base::run_detached(serve_in_background, &starting);
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(told.get(), buffer.data(), buffer.size())) != 0;) {
    if (got < 0 && errno != EINTR) base::fail_errno("read from the mount's process", errno);
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object()) {
    base::fail(Code::io, "could not mount \"{}\": the process that should serve it died",
               place.directory.string());
  }
  if (!answer.value("ready", false)) throw_told(answer);
}

void start_mount_process(const InstantPlace& place) {
  const base::Outcome outcome =
      base::run({{base::own_program().string(), "mount", "--json", place.directory.string()},
                 {},
                 {},
                 {},
                 {}});
  if (outcome.status == 0) return;
  const json told = json::parse(outcome.output, nullptr, false);
  if (told.is_object() && told.contains("error")) throw_told(told);
  base::fail(Code::io, "could not mount \"{}\": {}", place.directory.string(), outcome.errors);
}

void unmount_instant(const InstantPlace& place) {
  while (const auto pid = serving_process(place)) {
    if (*pid > 0) ::kill(*pid, SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    base::stop_if_interrupted();
  }
  mount::clear_stale_mount(place.directory);
}

void discard_instant(const InstantPlace& place) {
  auto description = read_description(place.part(going));
  if (!description) {
    description = existing_instant(place);
    if (server_runs_on(place.data())) {
      throw base::Error(
          Code::refused,
          fmt::format("cannot remove \"{}\": a server is running on it", place.directory.string()),
          "stop it first");
    }
    unmount_instant(place);
    base::fs::rename(place.part("description"), place.part(going));
    base::sync_directory(place.state());
  }
  unmount_instant(place);
  // They were empty before; but only what a cluster has there is surely ours.
  std::vector<path> places = description->of_replay;
  for (const auto& [link, location] : description->tablespaces) places.push_back(location);
  for (const path& location : places) {
    for (const auto& name : base::directory_names(location).value_or(std::vector<std::string>{})) {
      if (name.starts_with("PG_")) base::fs::remove_all(location / name);
    }
  }
  for (const auto& name :
       base::directory_names(place.state()).value_or(std::vector<std::string>{})) {
    if (name != going) base::fs::remove_all(place.part(name));
  }
  base::sync_directory(place.state());
  base::fs::remove_all(place.state());
  std::error_code not_ours;
  base::fs::remove(place.directory, not_ours);  // the mount point, which is empty
}

void pause_hydration(const InstantPlace& place, bool paused) {
  existing_instant(place);
  if (paused) {
    base::replace_file(place.part("paused"), base::view("paused\n"));
  } else {
    base::fs::remove(place.part("paused"));
  }
}

void wait_until_hydrated(const InstantPlace& place, base::Progress& progress) {
  std::uint64_t shown = 0;
  progress.begin("hydrating", instant_status(place).total);
  std::string said;
  while (true) {
    const InstantStatus status = instant_status(place);
    if (status.complete) return;
    if (!status.mounted) {
      throw base::Error(
          Code::io, fmt::format("\"{}\" is not mounted any more", place.directory.string()),
          fmt::format("`holdfast mount {}` goes on with it", place.directory.string()));
    }
    if (status.trouble != said) {
      said = status.trouble;
      if (!said.empty()) progress.warn("{}", said);
    }
    progress.set_total(status.total);
    if (status.done > shown) progress.add(status.done - std::exchange(shown, status.done));
    base::stop_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace holdfast::operations
