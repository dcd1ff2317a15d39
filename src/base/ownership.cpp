#include "base/ownership.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/process.h"

namespace holdfast::base {

void give_to_owner_of_directory(const fs::path& made) {
  if (!running_as_root()) return;
  struct stat above {};
  struct stat status {};
  const Fd parent = open_file(fs::absolute(made).parent_path(), O_PATH | O_DIRECTORY);
  const Fd file(::openat(parent.get(), made.filename().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file || ::fstat(file.get(), &status) != 0 || ::fstat(parent.get(), &above) != 0) {
    fail_errno(fmt::format("look at \"{}\"", made.string()), errno);
  }
  const bool has_other_names = !S_ISDIR(status.st_mode) && status.st_nlink != 1;
  if (above.st_uid == 0 || S_ISLNK(status.st_mode) || has_other_names) return;
  if (::fchownat(file.get(), "", above.st_uid, above.st_gid, AT_EMPTY_PATH) != 0) {
    fail_errno(fmt::format("give \"{}\" to the owner of its directory", made.string()), errno);
  }
}

void make_directories_for_owner(const fs::path& directory, mode_t mode) {
  if (directory.empty() || status_of(directory)) return;
  make_directories_for_owner(directory.parent_path(), mode);
  make_directories(directory, mode);
  give_to_owner_of_directory(directory);
}

}  // namespace holdfast::base
