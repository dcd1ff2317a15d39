#include "base/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <thread>

#include "base/cage.h"
#include "base/error.h"

extern char** environ;

namespace holdfast::base {

namespace {

struct Pipe {
  Fd read;
  Fd write;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail_errno("create a pipe", errno);
    read = Fd(ends[0]);
    write = Fd(ends[1]);
  }
};

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& each : strings) result.push_back(each.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_of(const Command& command) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    bool replaced = false;
    for (const auto& [name, value] : command.environment) {
      replaced = replaced || text.starts_with(name + "=");
    }
    if (!replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : command.environment) result.push_back(name + "=" + value);
  return result;
}

/// All groups of a user, as a login would give them: a server may read its key only by one of them.
std::vector<gid_t> groups_of(const User& user) {
  std::vector<gid_t> groups(64);
  auto count = static_cast<int>(groups.size());
  while (::getgrouplist(user.name.c_str(), user.gid, groups.data(), &count) < 0) {
    groups.resize(groups.size() * 2);
    count = static_cast<int>(groups.size());
  }
  groups.resize(static_cast<std::size_t>(count));
  return groups;
}

/// Between fork and exec only async-signal-safe calls are allowed: everything is prepared before.
pid_t start(const Command& command, int in, int out, int err, const Cage* cage = nullptr) {
  if (command.argv.empty()) fail(Code::internal, "a command without a program");
  std::vector<std::string> arguments = command.argv;
  std::vector<std::string> environment = environment_of(command);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  const std::vector<gid_t> groups = command.user ? groups_of(*command.user) : std::vector<gid_t>();
  Pipe failure;
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) fail_errno("start a process", errno);
  if (pid == 0) {
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::dup2(err, 2);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) {
      ::signal(number, SIG_DFL);
    }
    // What we inherited ourselves is not for the child. (A kernel before 5.11 does not know this.)
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    bool ready = true;
    if (command.user) {
      ready = ::setgroups(groups.size(), groups.data()) == 0 && ::setgid(command.user->gid) == 0 &&
              ::setuid(command.user->uid) == 0;
    }
    if (command.own_group) ::setpgid(0, 0);
    if (ready && cage != nullptr) ready = cage->enter();
    if (command.signal_when_orphaned != 0) {
      // After the change of user, which would undo it; and the parent may be gone by now.
      ::prctl(PR_SET_PDEATHSIG, command.signal_when_orphaned);
      if (::getppid() != parent) ::_exit(127);
    }
    if (ready && !command.directory.empty()) ready = ::chdir(command.directory.c_str()) == 0;
    if (ready) ::execvpe(argv[0], argv.data(), envp.data());
    const int reason = errno;
    [[maybe_unused]] const ssize_t ignored = ::write(failure.write.get(), &reason, sizeof reason);
    ::_exit(127);
  }
  failure.write.reset();
  int reason = 0;
  ssize_t told = 0;
  do {
    told = ::read(failure.read.get(), &reason, sizeof reason);
  } while (told < 0 && errno == EINTR);
  if (told == sizeof reason) {
    ::waitpid(pid, nullptr, 0);
    if (reason == ENOENT) {
      throw Error(Code::not_found,
                  fmt::format("could not run \"{}\": there is no such program", command.argv[0]));
    }
    fail_errno(fmt::format("run \"{}\"", command.argv[0]), reason);
  }
  return pid;
}

/// write(2) to a pipe whose other end may be closed: then EPIPE, and not the signal that ends us.
ssize_t write_without_signal(const Fd& to, std::string_view bytes) {
  sigset_t pipe_signal;
  sigset_t before;
  sigset_t pending;
  ::sigemptyset(&pipe_signal);
  ::sigaddset(&pipe_signal, SIGPIPE);
  ::sigpending(&pending);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t count = ::write(to.get(), bytes.data(), bytes.size());
  const int reason = errno;
  if (count < 0 && reason == EPIPE && ::sigismember(&pending, SIGPIPE) == 0) {
    const timespec at_once{};
    ::sigtimedwait(&pipe_signal, nullptr, &at_once);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = reason;
  return count;
}

int status_from(int raw) {
  return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
}

int wait_for_pid(pid_t pid) {
  int raw = 0;
  while (::waitpid(pid, &raw, 0) < 0) {
    if (errno != EINTR) fail_errno("wait for a process", errno);
  }
  return status_from(raw);
}

std::atomic<pid_t> foreground{0};
std::atomic<int> asked_to_stop{0};  ///< a signal that came before the program was there
static_assert(std::atomic<pid_t>::is_always_lock_free, "a signal handler reads it");

/// A key at the terminal (SI_KERNEL) reaches all of the foreground; passed on it would come twice.
void pass_on(int number, siginfo_t* how, void*) {
  if (how->si_code == SI_KERNEL) return;
  const int before = errno;
  const pid_t pid = foreground.load();
  if (pid > 0) {
    ::kill(pid, number);
  } else {
    asked_to_stop.store(number);
  }
  errno = before;
}

/// As long as it lives, signals that ask to stop go to the program in the foreground.
class PassedOnSignals {
 public:
  PassedOnSignals() {
    struct sigaction action {};
    action.sa_sigaction = pass_on;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      ::sigaction(numbers[i], &action, &before_[i]);
    }
  }
  ~PassedOnSignals() {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      ::sigaction(numbers[i], &before_[i], nullptr);
    }
  }
  PassedOnSignals(const PassedOnSignals&) = delete;
  PassedOnSignals& operator=(const PassedOnSignals&) = delete;

 private:
  static constexpr std::array<int, 4> numbers{SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  std::array<struct sigaction, 4> before_{};
};

/// Takes what there is from a pipe; false once the other end is closed.
bool drain(const Fd& from, std::string& into) {
  std::array<char, 65536> buffer;
  const ssize_t count = ::read(from.get(), buffer.data(), buffer.size());
  if (count < 0 && errno == EINTR) return true;
  if (count <= 0) return false;
  into.append(buffer.data(), static_cast<std::size_t>(count));
  return true;
}

/// Feeds stdin and collects both outputs at once, so that no side can block the other.
void exchange(Pipe& in, Pipe& out, Pipe& err, std::string_view input, Outcome& outcome) {
  if (input.empty()) in.write.reset();
  // A write must not wait: the child may itself be waiting for us to read.
  if (in.write) ::fcntl(in.write.get(), F_SETFL, O_WRONLY | O_NONBLOCK);
  while (out.read || err.read) {
    std::array<pollfd, 3> polls{pollfd{in.write.get(), POLLOUT, 0},
                                pollfd{out.read.get(), POLLIN, 0},
                                pollfd{err.read.get(), POLLIN, 0}};
    if (::poll(polls.data(), polls.size(), -1) < 0) {
      if (errno == EINTR) continue;
      fail_errno("wait for a process", errno);
    }
    if (in.write && polls[0].revents != 0) {
      const ssize_t count = write_without_signal(in.write, input);
      if (count > 0) input.remove_prefix(static_cast<std::size_t>(count));
      const bool later = count < 0 && (errno == EAGAIN || errno == EINTR);
      if ((count < 0 && !later) || input.empty()) in.write.reset();
    }
    if (out.read && polls[1].revents != 0 && !drain(out.read, outcome.output)) out.read.reset();
    if (err.read && polls[2].revents != 0 && !drain(err.read, outcome.errors)) err.read.reset();
  }
}

}  // namespace

std::optional<User> find_user(const std::string& name) {
  const passwd* entry = ::getpwnam(name.c_str());
  if (entry == nullptr) return std::nullopt;
  return User{name, entry->pw_uid, entry->pw_gid};
}

std::optional<User> find_user(uid_t uid) {
  const passwd* entry = ::getpwuid(uid);
  if (entry == nullptr) return std::nullopt;
  return User{entry->pw_name, entry->pw_uid, entry->pw_gid};
}

bool running_as_root() {
  return ::geteuid() == 0;
}

std::optional<std::pair<uid_t, gid_t>> find_owner(const std::string& owner) {
  const std::size_t colon = owner.find(':');
  const std::string user = owner.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : owner.substr(colon + 1);
  const auto number = [](const std::string& text) -> std::optional<std::uint32_t> {
    std::uint32_t value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  std::array<char, 4096> buffer{};
  passwd user_entry{};
  passwd* found_user = nullptr;
  ::getpwnam_r(user.c_str(), &user_entry, buffer.data(), buffer.size(), &found_user);
  const auto uid = found_user != nullptr ? std::optional(found_user->pw_uid) : number(user);
  struct group group_entry {};
  struct group* found_group = nullptr;
  ::getgrnam_r(group.c_str(), &group_entry, buffer.data(), buffer.size(), &found_group);
  const auto gid = found_group != nullptr ? std::optional(found_group->gr_gid) : number(group);
  if (!uid || !gid) return std::nullopt;
  return std::pair(*uid, *gid);
}

namespace {

Outcome run_in(const Command& command, const Cage* cage) {
  Pipe in;
  Pipe out;
  Pipe err;
  const pid_t pid = start(command, in.read.get(), out.write.get(), err.write.get(), cage);
  in.read.reset();
  out.write.reset();
  err.write.reset();
  Outcome outcome;
  exchange(in, out, err, command.input, outcome);
  outcome.status = wait_for_pid(pid);
  return outcome;
}

}  // namespace

Outcome run(const Command& command) {
  return run_in(command, nullptr);
}

Outcome run(const Command& command, const Cage& cage) {
  return run_in(command, &cage);
}

Outcome run_into(const Command& command, int output) {
  Pipe in;
  Pipe err;
  const pid_t pid = start(command, in.read.get(), output, err.write.get());
  in.read.reset();
  err.write.reset();
  Pipe nothing;
  nothing.read.reset();
  Outcome outcome;
  exchange(in, nothing, err, {}, outcome);
  outcome.status = wait_for_pid(pid);
  return outcome;
}

int run_in_foreground(const Command& command, int output) {
  asked_to_stop.store(0);
  const PassedOnSignals passed_on;
  const pid_t pid = start(command, STDIN_FILENO, output, STDERR_FILENO);
  foreground.store(pid);
  if (const int early = asked_to_stop.load(); early != 0) ::kill(pid, early);
  // It stays there to be signalled until it is reaped: its number cannot be another's meanwhile.
  siginfo_t ended{};
  while (::waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  foreground.store(0);
  return wait_for_pid(pid);
}

void become(const Command& command) {
  std::vector<std::string> arguments = command.argv;
  std::vector<std::string> environment = environment_of(command);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  if (command.user && (::setgroups(0, nullptr) != 0 || ::setgid(command.user->gid) != 0 ||
                       ::setuid(command.user->uid) != 0)) {
    fail_errno(fmt::format("become user {}", command.user->name), errno);
  }
  if (!command.directory.empty() && ::chdir(command.directory.c_str()) != 0) {
    fail_errno(fmt::format("go to \"{}\"", command.directory.string()), errno);
  }
  ::execvpe(argv[0], argv.data(), envp.data());
  fail_errno(fmt::format("run \"{}\"", command.argv[0]), errno);
}

std::string run_checked(const Command& command) {
  Outcome outcome = run(command);
  if (outcome.status == 0) return std::move(outcome.output);
  std::string_view why = outcome.errors.empty() ? outcome.output : outcome.errors;
  while (!why.empty() && why.back() == '\n') why.remove_suffix(1);
  if (why.size() > 1000) why.remove_prefix(why.size() - 1000);
  fail(Code::io, "{} failed with status {}: {}", command.argv[0], outcome.status, why);
}

Child::Child(const Command& command, const fs::path& log) : Child(command, log, nullptr) {}

Child::Child(const Command& command, const fs::path& log, const Cage& cage)
    : Child(command, log, &cage) {}

Child::Child(const Command& command, const fs::path& log, const Cage* cage) {
  const Fd in = open_file("/dev/null", O_RDONLY);
  const Fd out = open_file(log, O_WRONLY | O_CREAT | O_APPEND);
  pid_ = start(command, in.get(), out.get(), out.get(), cage);
}

Child::~Child() {
  if (finished()) return;
  signal(SIGTERM);
  try {
    if (wait_for(std::chrono::seconds(10))) return;
    signal(SIGKILL);
    wait();
  } catch (const std::exception&) {
    // Nobody is left to tell; the process is not ours any more.
  }
}

void Child::signal(int number) const {
  if (!status_) ::kill(pid_, number);
}

void Child::signal_group(int number) const {
  ::kill(-pid_, number);
}

std::optional<int> Child::finished() {
  if (status_) return status_;
  int raw = 0;
  const pid_t result = ::waitpid(pid_, &raw, WNOHANG);
  if (result == pid_) status_ = status_from(raw);
  return status_;
}

std::optional<int> Child::wait_for(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!finished() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return status_;
}

int Child::wait() {
  if (!status_) status_ = wait_for_pid(pid_);
  return *status_;
}

void run_detached(void (*work)(void*), void* argument) {
  const pid_t first = ::fork();
  if (first < 0) fail_errno("start a process", errno);
  if (first > 0) {
    ::waitpid(first, nullptr, 0);
    return;
  }
  ::setsid();
  const pid_t second = ::fork();
  if (second != 0) ::_exit(0);
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  try {
    work(argument);
  } catch (const std::exception&) {
    ::_exit(1);
  }
  ::_exit(0);
}

fs::path own_program() {
  std::error_code failed;
  fs::path path = fs::read_symlink("/proc/self/exe", failed);
  if (failed) fail(Code::io, "could not find out the path of this program: {}", failed.message());
  return path;
}

}  // namespace holdfast::base
