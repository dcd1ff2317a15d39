#pragma once

// A cage around a program that is not to be trusted, held by the kernel and inherited by all that
// it starts. It needs no privileges, and nobody inside can open it.
//
// What it promises, where the kernel has it (cage_gaps() says what this one lacks):
// - nothing is written, made, removed, renamed, linked or truncated but below the places that were
//   named, and /dev/null is written to (Landlock, Linux 5.13; truncating 6.2; device ioctls 6.10);
// - no TCP port is bound or connected to (Landlock, 6.7), no abstract Unix socket and no signal
//   leaves it (6.12), and no process outside is traced (Landlock);
// - no socket is connected to anything, sockets that need no connection cannot be had, nor those of
//   other families than AF_UNIX, nor io_uring, which would go around that (seccomp, 3.17): so no
//   server on this machine is reached, be it by a Unix socket, and nothing on any other;
// - modes, owners, times and attributes of files stay, wherever they are, and no other process gets
//   other limits or priorities (seccomp). Changing a mode seems to succeed: PostgreSQL does not
//   start where it fails;
// - no program gets the rights of its file's owner (no_new_privs), and there is no terminal.
//
// What it does not promise: files can be read as before, programs can be run, processors and memory
// be used up, and System V shared memory of the same user be reached. What was open stays open.

#include <linux/filter.h>

#include <string>
#include <vector>

#include "base/file.h"

namespace holdfast::base {

/// The version of Landlock's interface that this kernel has; 0: none.
int landlock_version();

/// What this kernel cannot hold back; empty: it keeps all promises. For people.
std::vector<std::string> cage_gaps();
std::vector<std::string> cage_gaps(int landlock, bool seccomp);

class Cage {
 public:
  enum class Connections {
    none,
    any,  ///< for what cannot do without: then nothing of the above about sockets holds
  };
  /// `writable`: directories that are there; below them, also on what is mounted there, everything
  /// may be done that the user may do. `landlock`: for tests, as if the kernel had no more.
  explicit Cage(const std::vector<fs::path>& writable, Connections connections = Connections::none,
                int landlock = landlock_version());

  /// Locks this process in, for good. To be called between fork and exec. False: errno says why.
  bool enter() const noexcept;

 private:
  Fd ruleset_;  ///< none: there is no Landlock
  std::vector<sock_filter> filter_;
};

}  // namespace holdfast::base
