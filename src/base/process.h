#pragma once

// Running other programs: PostgreSQL's tools, a key command, a scratch server.
//
// A child gets the environment of this process plus what is asked for, no file descriptor but 0, 1
// and 2, and default signal handling. Secrets go in by stdin or environment, never by argv.

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace holdfast::base {

class Cage;

/// An operating system account.
struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
};
std::optional<User> find_user(const std::string& name);
std::optional<User> find_user(uid_t uid);
bool running_as_root();
/// Whom "user:group" means here, each a name or a number; nullopt if nobody.
std::optional<std::pair<uid_t, gid_t>> find_owner(const std::string& owner);

struct Command {
  std::vector<std::string> argv;                                 ///< argv[0] is looked up in PATH
  fs::path directory;                                            ///< working directory; empty: ours
  std::vector<std::pair<std::string, std::string>> environment;  ///< added to ours
  std::string input;         ///< what the child reads from stdin
  std::optional<User> user;  ///< whom to become; only root can
  bool own_group = false;    ///< a process group of its own: signal_group() reaches all in it
  /// Sent to the child when the thread that started it ends, however it ends; 0: none.
  int signal_when_orphaned = 0;
};

struct Outcome {
  int status = 0;  ///< exit status, or 128 + the signal that ended it
  std::string output;
  std::string errors;
};

/// Runs to the end and collects both outputs. Throws only if the program cannot be started at all.
Outcome run(const Command& command);
/// The same, locked into a cage with all that it starts.
Outcome run(const Command& command, const Cage& cage);
/// The same, but what the child prints goes straight to `output`.
Outcome run_into(const Command& command, int output);
/// Runs to the end; throws Error(io) with the last lines of stderr unless the status is 0.
std::string run_checked(const Command& command);

/// Runs to the end with our own stdin and stderr; stdout goes to `output`. Returns the exit status,
/// or 128 + the signal that ended it. Meanwhile signals that ask to stop are the program's: those
/// from the keyboard, which reach it anyway, are only survived; those that somebody sends to this
/// process are passed on. If this process is killed, the program goes on. (One at a time.)
int run_in_foreground(const Command& command, int output);

/// Turns this process into another program. Returns only by throwing.
[[noreturn]] void become(const Command& command);

/// A program that runs while we do something else. Ended (SIGTERM, then SIGKILL) by the destructor.
class Child {
 public:
  /// Both outputs are appended to `log`; stdin is empty.
  Child(const Command& command, const fs::path& log);
  /// Locked into a cage with all that it starts.
  Child(const Command& command, const fs::path& log, const Cage& cage);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// To all processes of a child that has its own group, also once the child itself has ended.
  void signal_group(int number) const;
  /// The exit status if it has ended (128 + signal if killed), without waiting.
  std::optional<int> finished();
  /// Waits for the end; nullopt if it is still running after `limit`.
  std::optional<int> wait_for(std::chrono::milliseconds limit);
  int wait();

 private:
  Child(const Command& command, const fs::path& log, const Cage* cage);
  pid_t pid_ = -1;
  std::optional<int> status_;
};

/// Goes on in a process of its own, detached from this one and its terminal: `work` runs there and
/// nowhere else. Must be called while this process has a single thread.
void run_detached(void (*work)(void*), void* argument);

/// The path of the running program itself; throws if it cannot be found out (TRAPS WF17).
fs::path own_program();

}  // namespace holdfast::base
