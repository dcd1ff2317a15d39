#include "repository/lease.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace holdfast::repository {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

std::string boot_id() {
  const auto bytes = base::read_file("/proc/sys/kernel/random/boot_id");
  std::string id(bytes ? base::text(*bytes) : "");
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

/// When a process began, so that a number used again is not taken for it; empty if there is none.
std::string start_of_process(pid_t pid) {
  const auto bytes = base::read_file(fmt::format("/proc/{}/stat", pid));
  if (!bytes) return {};
  // Fields after the name, which may hold anything but ends with the last parenthesis; proc(5).
  std::string_view text = base::text(*bytes);
  text.remove_prefix(std::min(text.size(), text.rfind(')') + 1));
  for (int field = 3; field <= 22 && !text.empty(); ++field) {
    text.remove_prefix(1);
    const std::size_t end = text.find(' ');
    if (field == 22) return std::string(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end);
  }
  return {};
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// Process numbers mean something only within one namespace of them: each container has its own.
std::string pid_namespace() {
  std::error_code failed;
  return base::fs::read_symlink("/proc/self/ns/pid", failed).string();
}

/// Time that passes also while the machine sleeps, and that no one can set.
std::int64_t uptime() {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000;
}

json describe_holder(base::Timestamp expires, const std::string& doing) {
  return {{"doing", doing},
          {"host", host_name()},
          {"boot", boot_id()},
          {"pid_namespace", pid_namespace()},
          {"pid", ::getpid()},
          {"process_started", start_of_process(::getpid())},
          {"taken", base::to_iso(base::now())},
          {"expires", base::to_iso(expires)}};
}

struct Holder {
  std::string doing;  ///< those of older versions do not say it
  std::string host;
  std::string boot;
  std::string pid_namespace;
  std::string process_started;
  std::string taken;
  pid_t pid = 0;
};

/// Only what is certain counts: the same kernel, the same numbering of processes, and either no
/// such process or one that began at another time. One that is hidden from us (hidepid) is not
/// dead.
bool is_known_dead(const Holder& holder) {
  if (holder.boot.empty() || holder.boot != boot_id()) return false;
  if (holder.pid_namespace.empty() || holder.pid_namespace != pid_namespace()) return false;
  if (holder.pid <= 0 || holder.process_started.empty()) return false;
  if (::kill(holder.pid, 0) != 0 && errno == ESRCH) return true;
  const std::string started = start_of_process(holder.pid);
  return !started.empty() && started != holder.process_started;
}

/// What the objects of one lease number say together.
struct State {
  Holder holder;
  base::Timestamp expires{};
  bool released = false;
  bool changing = false;  ///< objects went while we read: somebody is at work

  bool is_over(std::chrono::seconds term) const {
    return released || (!changing && (base::now() > expires + term || is_known_dead(holder)));
  }
};

std::uint64_t number_of(const std::string& name) {
  std::uint64_t number = 0;
  for (const char c : name.substr(0, 10)) {
    if (c < '0' || c > '9') return 0;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

std::uint64_t highest_of(const std::vector<std::string>& names) {
  std::uint64_t highest = 0;
  for (const std::string& each : names) highest = std::max(highest, number_of(each));
  return highest;
}

void read_object(base::View bytes, bool names_holder, State& state) {
  const json object = json::parse(base::text(bytes));
  const base::Timestamp expires = base::from_iso(object.at("expires").get<std::string>());
  state.expires = std::max(state.expires, expires);
  if (!names_holder) return;
  state.holder = {object.value("doing", ""),
                  object.at("host"),
                  object.at("boot"),
                  object.at("pid_namespace"),
                  object.at("process_started"),
                  object.at("taken"),
                  object.at("pid").get<pid_t>()};
}

State read_state(store::ObjectStore& store, const std::string& directory,
                 const std::vector<std::string>& names, std::uint64_t number) {
  State state;
  for (const std::string& name : names) {
    if (number_of(name) != number) continue;
    if (name.ends_with("-released")) {
      state.released = true;
      continue;
    }
    const auto unreadable = [&] {
      // Unreadable is not absent (TRAPS GC5): somebody may hold it.
      throw Error(Code::corrupt,
                  fmt::format("lease object \"{}/{}\" is not readable", directory, name),
                  "if nothing is running on this cluster, remove it");
    };
    std::optional<base::Bytes> bytes;
    try {
      bytes = store.get(directory + "/" + name);
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      unreadable();
    }
    if (!bytes) {
      state.changing = true;
      continue;
    }
    try {
      read_object(*bytes, name.size() == 10, state);
    } catch (const std::exception&) {
      unreadable();
    }
  }
  return state;
}

std::string number_text(std::uint64_t number) {
  return fmt::format("{:010}", number);
}

}  // namespace

Lease::Lease(const Repository& repository, const ClusterPlace& place, std::string work,
             std::chrono::seconds term, std::string doing)
    : repository_(repository),
      directory_(place.directory() + "/leases/" + work),
      work_(std::move(work)),
      doing_(doing.empty() ? work_ : std::move(doing)),
      term_(term) {
  acquire();
  renewer_ = std::jthread([this](const std::stop_token& stop) { renew_until_stopped(stop); });
}

Lease::~Lease() {
  renewer_.request_stop();
  if (renewer_.joinable()) renewer_.join();
  try {
    // Not committing this only makes the next holder wait for the term.
    [[maybe_unused]] const bool written =
        repository_.store().put(name("-released"), base::view("{}\n"));
  } catch (const std::exception&) {
  }
}

std::string Lease::name(std::string_view suffix) const {
  return fmt::format("{}/{}{}", directory_, number_text(number_), suffix);
}

void Lease::acquire() {
  store::ObjectStore& store = repository_.store();
  const std::vector<std::string> names = store.names(directory_);
  const std::uint64_t highest = highest_of(names);
  if (highest > 0) {
    const State state = read_state(store, directory_, names, highest);
    if (!state.is_over(term_)) {
      throw Error(
          Code::busy,
          fmt::format("could not begin: another {} of cluster {} is running (process {} on {} "
                      "since {})",
                      state.holder.doing.empty() ? work_ : state.holder.doing,
                      directory_.substr(9, directory_.find('/', 9) - 9), state.holder.pid,
                      state.holder.host, state.holder.taken),
          "wait until it ends; one that died is noticed within two minutes");
    }
  }
  number_ = highest + 1;
  const base::Timestamp expires = base::now() + term_;
  const std::int64_t deadline = uptime() + base::Microseconds(term_).count();
  const auto lose = [this] {
    throw Error(Code::busy,
                fmt::format("could not begin: another {} began at the same moment", work_),
                "wait until it ends");
  };
  if (!store.put(name(), base::view(describe_holder(expires, doing_).dump(2) + "\n"))) lose();
  // Who slept since he read the names may have taken a number that was used and removed (TRAPS
  // LC5). The two highest are never removed, so he sees it here.
  if (is_overtaken(store.names(directory_))) lose();
  expires_ = expires.time_since_epoch().count();
  deadline_ = deadline;
  for (const std::string& each : names) {
    if (number_of(each) < highest) store.remove(directory_ + "/" + each);
  }
}

bool Lease::is_overtaken(const std::vector<std::string>& names) const {
  return std::ranges::any_of(names, [this](const auto& each) { return number_of(each) > number_; });
}

bool Lease::is_over() const {
  return base::now().time_since_epoch().count() >= expires_ || uptime() >= deadline_;
}

void Lease::renew() {
  // The time is read once, before all else: whatever comes between, no more is claimed than was
  // ours at this moment (TRAPS LC4).
  const base::Timestamp expires = base::now() + term_;
  const std::int64_t deadline = uptime() + base::Microseconds(term_).count();
  store::ObjectStore& store = repository_.store();
  // A renewal that does not extend, as the clock was put back, is none (TRAPS LC7).
  if (is_over() || expires.time_since_epoch().count() <= expires_) lost_ = true;
  const std::vector<std::string> names = store.names(directory_);
  if (is_overtaken(names)) lost_ = true;
  if (lost_) return;
  // Each try has a name of its own, as one that failed may have been stored all the same.
  const json content = {{"expires", base::to_iso(expires)}};
  if (!store.put(name(fmt::format("-renewed-{}", ++renewals_)),
                 base::view(content.dump() + "\n"))) {
    lost_ = true;
    return;
  }
  expires_ = expires.time_since_epoch().count();
  deadline_ = deadline;
  for (const std::string& each : names) {
    if (each.starts_with(number_text(number_) + "-renewed-")) store.remove(directory_ + "/" + each);
  }
}

void Lease::renew_until_stopped(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any woken;
  std::unique_lock lock(mutex);
  const auto step = std::chrono::milliseconds(term_) / 3;
  while (!woken.wait_for(lock, stop, step, [] { return false; }) && !stop.stop_requested()) {
    try {
      renew();
    } catch (const std::exception&) {
      // The next try may work; if none does, the term ends and check() says so.
    }
    if (lost_) return;
  }
}

void Lease::check() const {
  if (lost_ || is_over()) {
    throw Error(Code::busy,
                fmt::format("could not finish: the lease on this {} was lost to somebody else, or "
                            "could not be renewed in time",
                            doing_),
                "run it again");
  }
}

std::optional<base::Timestamp> held_since(const Repository& repository, const ClusterPlace& place,
                                          const std::string& work, std::chrono::seconds term) {
  store::ObjectStore& store = repository.store();
  const std::string directory = place.directory() + "/leases/" + work;
  for (;;) {
    const std::vector<std::string> names = store.names(directory);
    if (names.empty()) return std::nullopt;
    const State state = read_state(store, directory, names, highest_of(names));
    if (state.is_over(term)) return std::nullopt;
    // A renewal takes the place of the one before; what remains is who took it.
    if (!state.holder.taken.empty()) return base::from_iso(state.holder.taken);
  }
}

}  // namespace holdfast::repository
