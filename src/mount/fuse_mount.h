#pragma once

// A Tree as a file system of the kernel, by FUSE.
//
// As root everybody who the files' modes let may use it (allow_other); else only the user who
// mounted it, through fusermount3. When this process dies the kernel answers every call with an
// error (ENOTCONN) until the mount point is cleared.

#include "base/error.h"
#include "mount/tree.h"

namespace holdfast::mount {

/// Why this machine cannot mount; nullopt if it seems that it can.
std::optional<std::string> cannot_mount();

/// Takes away what a dead process left mounted at `point`, if anything.
void clear_stale_mount(const base::fs::path& point);
/// Something is mounted at `point`, dead or alive.
bool is_mounted(const base::fs::path& point);

/// One mount; the tree must outlive it.
class FuseMount {
 public:
  /// Mounts at `point`, an empty directory. `log` is told what went wrong in the file system's
  /// calls.
  FuseMount(Tree& tree, const base::fs::path& point, std::function<void(const base::Error&)> log);
  /// Unmounts, however busy it is.
  ~FuseMount();
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;

  /// Serves, in this thread and others, until SIGTERM or SIGINT comes or somebody unmounts it.
  /// Other threads of the process must block these signals.
  void serve();

 private:
  struct Session;
  std::unique_ptr<Session> session_;
};

}  // namespace holdfast::mount
