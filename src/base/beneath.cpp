#include "base/beneath.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <memory>

#include "base/error.h"
#include "base/process.h"

namespace holdfast::base {

namespace {

/// As many links as the kernel follows.
constexpr int most_links = 40;

[[noreturn]] void fail_at(std::string_view verb, const fs::path& path, int error_number) {
  if (error_number == ELOOP || error_number == EXDEV) {
    throw Error(Code::refused,
                fmt::format("cannot {} \"{}\": a symbolic link is in the way, and it is not "
                            "followed",
                            verb, path.string()));
  }
  fail_errno(fmt::format("{} \"{}\"", verb, path.string()), error_number);
}

bool means_absent(int error_number) {
  return error_number == ENOENT || error_number == ENOTDIR;
}

int open_beneath(int directory, const std::string& path, int flags, mode_t mode) {
  static std::atomic<bool> missing{false};
  if (!missing) {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
    how.mode = (flags & O_CREAT) != 0 ? mode : 0;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    const char* name = path.empty() ? "." : path.c_str();
    const long fd = ::syscall(SYS_openat2, directory, name, &how, sizeof(how));
    // A filter of system calls (seccomp) says EPERM, also where the call is known.
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(fd);
    if (errno == ENOSYS) missing = true;
  }
  return open_beneath_by_steps(directory, path, flags, mode);
}

/// The directory that a user named, for root: in no step through a link that somebody else made and
/// that leads to what is not his. Returns -1 and errno if it is not there.
int open_named_as_root(const fs::path& directory) {
  const fs::path whole = fs::absolute(directory);
  std::deque<std::string> parts;
  for (const fs::path& part : whole.relative_path()) parts.push_back(part.string());
  Fd at(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::optional<uid_t> stranger;
  for (int links = 0; !parts.empty();) {
    const std::string part = parts.front();
    parts.pop_front();
    if (part.empty() || part == ".") continue;
    Fd next(::openat(at.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next) return -1;
    struct stat status {};
    if (::fstat(next.get(), &status) != 0) return -1;
    if (!S_ISLNK(status.st_mode)) {
      at = std::move(next);
      continue;
    }
    if (++links > most_links || (stranger && status.st_uid != 0 && *stranger != status.st_uid)) {
      errno = ELOOP;
      return -1;
    }
    if (status.st_uid != 0) stranger = status.st_uid;
    std::array<char, 4096> target{};
    if (::readlinkat(next.get(), "", target.data(), target.size() - 1) < 0) return -1;
    const fs::path there(target.data());
    if (there.is_absolute()) at = Fd(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    std::deque<std::string> before;
    for (const fs::path& each : there.relative_path()) before.push_back(each.string());
    parts.insert(parts.begin(), before.begin(), before.end());
  }
  struct stat status {};
  if (::fstat(at.get(), &status) != 0) return -1;
  if (stranger && status.st_uid != *stranger) {
    errno = ELOOP;
    return -1;
  }
  return ::openat(at.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int open_named(const fs::path& directory) {
  if (running_as_root()) return open_named_as_root(directory);
  return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

}  // namespace

int open_beneath_by_steps(int directory, const std::string& path, int flags, mode_t mode) {
  std::vector<std::string> parts;
  for (const fs::path& part : fs::path(path)) {
    if (part == "..") {
      errno = EXDEV;
      return -1;
    }
    if (!part.empty() && part != ".") parts.push_back(part.string());
  }
  if (parts.empty()) return ::openat(directory, ".", flags | O_CLOEXEC, mode);
  Fd at;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const int from = at ? at.get() : directory;
    Fd next(::openat(from, parts[i].c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) {
      struct stat status {};
      const int failed = errno;
      const bool is_link = ::fstatat(from, parts[i].c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                           S_ISLNK(status.st_mode);
      errno = is_link ? ELOOP : failed;
      return -1;
    }
    at = std::move(next);
  }
  const int from = at ? at.get() : directory;
  return ::openat(from, parts.back().c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

/// The last part of a path, and the directory that it is in.
struct Beneath::Leaf {
  Fd parent;
  std::string name;
};

Beneath::Leaf Beneath::leaf(const std::string& path) const {
  const std::size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
  Fd directory(open_beneath(directory_.get(), parent, O_PATH | O_DIRECTORY, 0));
  if (!directory && !means_absent(errno)) fail_at("open directory", full(parent), errno);
  return {std::move(directory), slash == std::string::npos ? path : path.substr(slash + 1)};
}

Beneath::Beneath(const fs::path& directory) : name_(directory), directory_(open_named(directory)) {
  if (!directory_) fail_at("open directory", directory, errno);
}

std::optional<Beneath> Beneath::find(const fs::path& directory) {
  Fd opened(open_named(directory));
  if (opened) return Beneath(directory, std::move(opened));
  if (errno == ENOENT) return std::nullopt;
  fail_at("open directory", directory, errno);
}

Beneath Beneath::make(const fs::path& directory, mode_t mode) {
  if (auto found = find(directory)) return *std::move(found);
  const fs::path parent = fs::absolute(directory).parent_path();
  const Beneath above = make(parent, mode);
  const std::string leaf = directory.filename().string();
  above.make_directory(leaf, mode);
  above.sync_names("");
  return {directory, above.open(leaf, O_RDONLY | O_DIRECTORY)};
}

struct stat Beneath::status() const {
  struct stat status {};
  if (::fstat(directory_.get(), &status) != 0) fail_at("stat", name_, errno);
  return status;
}

Fd Beneath::open(const std::string& path, int flags, mode_t mode) const {
  Fd file(open_beneath(directory_.get(), path, flags, mode));
  if (!file) fail_at("open", full(path), errno);
  return file;
}

std::optional<Fd> Beneath::open_if_exists(const std::string& path, int flags) const {
  Fd file(open_beneath(directory_.get(), path, flags, 0));
  if (file) return file;
  if (means_absent(errno)) return std::nullopt;
  fail_at("open", full(path), errno);
}

std::optional<struct stat> Beneath::status_of(const std::string& path) const {
  if (path.empty()) return status();
  const Leaf at = leaf(path);
  if (!at.parent) return std::nullopt;
  struct stat status {};
  if (::fstatat(at.parent.get(), at.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) return status;
  if (means_absent(errno)) return std::nullopt;
  fail_at("stat", full(path), errno);
}

std::optional<std::string> Beneath::link_target(const std::string& path) const {
  const Leaf at = leaf(path);
  if (!at.parent) return std::nullopt;
  std::array<char, 4096> target{};
  const ssize_t size =
      ::readlinkat(at.parent.get(), at.name.c_str(), target.data(), target.size() - 1);
  if (size >= 0) return std::string(target.data(), static_cast<std::size_t>(size));
  if (means_absent(errno) || errno == EINVAL) return std::nullopt;
  fail_at("read the link", full(path), errno);
}

std::optional<Bytes> Beneath::read_file(const std::string& path) const {
  const auto file = open_if_exists(path, O_RDONLY);
  if (!file) return std::nullopt;
  Bytes bytes(file_size(*file, full(path)));
  bytes.resize(read_at(*file, bytes, 0, full(path)));
  return bytes;
}

std::vector<std::string> Beneath::names(const std::string& path) const {
  Fd directory = open(path, O_RDONLY | O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(::dup(directory.get())),
                                                    ::closedir);
  if (!listing) fail_at("open directory", full(path), errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) fail_at("read directory", full(path), errno);
  std::sort(names.begin(), names.end());
  return names;
}

void Beneath::make_directory(const std::string& path, mode_t mode) const {
  const Leaf at = leaf(path);
  if (!at.parent) fail_at("create directory", full(path), ENOENT);
  if (::mkdirat(at.parent.get(), at.name.c_str(), mode) == 0) return;
  const int failed = errno;
  const auto status = failed == EEXIST ? status_of(path) : std::nullopt;
  if (status && S_ISDIR(status->st_mode)) return;
  fail_at("create directory", full(path), failed);
}

void Beneath::make_link(const std::string& target, const std::string& path) const {
  const Leaf at = leaf(path);
  if (!at.parent) fail_at("create the link", full(path), ENOENT);
  if (::symlinkat(target.c_str(), at.parent.get(), at.name.c_str()) != 0) {
    fail_at("create the link", full(path), errno);
  }
}

void Beneath::replace_file(const std::string& path, View bytes, mode_t mode) const {
  const std::string beside = path + ".holdfast";
  remove(beside);
  const Fd file = open(beside, O_WRONLY | O_CREAT | O_EXCL, mode);
  write_all(file, bytes, full(beside));
  if (::fchmod(file.get(), mode) != 0) fail_at("set the mode of", full(beside), errno);
  sync_file(file, full(beside));
  rename(beside, path);
}

void Beneath::rename(const std::string& from, const std::string& to) const {
  const Leaf here = leaf(from);
  const Leaf there = leaf(to);
  if (!here.parent || !there.parent) fail_at("rename", full(from), ENOENT);
  if (::renameat(here.parent.get(), here.name.c_str(), there.parent.get(), there.name.c_str()) !=
      0) {
    fail_at("rename", full(from), errno);
  }
}

bool Beneath::remove(const std::string& path) const {
  const Leaf at = leaf(path);
  if (!at.parent) return false;
  if (::unlinkat(at.parent.get(), at.name.c_str(), 0) == 0) return true;
  if (errno == EISDIR && ::unlinkat(at.parent.get(), at.name.c_str(), AT_REMOVEDIR) == 0) {
    return true;
  }
  if (errno == ENOENT) return false;
  fail_at("remove", full(path), errno);
}

std::uint64_t Beneath::remove_all(const std::string& path) const {
  const auto status = status_of(path);
  if (!status) return 0;
  std::uint64_t count = 0;
  if (S_ISDIR(status->st_mode)) {
    const std::size_t slash = path.rfind('/');
    const auto above = status_of(slash == std::string::npos ? "" : path.substr(0, slash));
    if (above && above->st_dev != status->st_dev) {
      throw Error(
          Code::refused,
          fmt::format("cannot remove \"{}\": it is a file system of its own", full(path).string()),
          "unmount it first");
    }
    for (const std::string& name : names(path)) count += remove_all(path + "/" + name);
  }
  return count + (remove(path) ? 1 : 0);
}

void Beneath::set_owner(const std::string& path, uid_t uid, gid_t gid) const {
  const bool top = path.empty();
  const Leaf at = top ? Leaf{} : leaf(path);
  const int failed =
      top ? ::fchown(directory_.get(), uid, gid)
          : ::fchownat(at.parent.get(), at.name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW);
  if (failed != 0) fail_at("change the owner of", full(path), errno);
}

void Beneath::set_mode(const std::string& path, mode_t mode) const {
  const Fd file = open(path, O_RDONLY | O_NONBLOCK);
  if (::fchmod(file.get(), mode) != 0) fail_at("set the mode of", full(path), errno);
}

void Beneath::sync_names(const std::string& path) const {
  sync_file(open(path, O_RDONLY | O_DIRECTORY), full(path));
}

}  // namespace holdfast::base
