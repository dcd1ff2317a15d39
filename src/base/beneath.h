#pragma once

// A directory, and nothing but what is beneath it.
//
// Whoever writes into a directory that others can write into must not be led out of it: a symbolic
// link in it may lead anywhere, and as root anything can be written there. Here the kernel sees to
// that (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; where it does not have that, one step
// at a time with O_NOFOLLOW): a path that passes a link is refused, whoever puts the link there and
// when. The directory itself may be reached through links, as the user names it; but as root not
// through a link of somebody else's that leads to what is not his.
//
// Paths are relative, without ".."; "" is the directory itself. Errors name the whole path; a link
// in the way is Error(refused). Several threads may use one.

#include <functional>

#include "base/file.h"

namespace holdfast::base {

class Beneath {
 public:
  /// The directory must be there.
  explicit Beneath(const fs::path& directory);
  /// Makes it, and what is missing above it, durably.
  static Beneath make(const fs::path& directory, mode_t mode = 0700);
  /// nullopt if there is no such directory.
  static std::optional<Beneath> find(const fs::path& directory);

  const fs::path& name() const { return name_; }
  const Fd& descriptor() const { return directory_; }
  /// Of the directory itself.
  struct stat status() const;
  fs::path full(const std::string& path) const { return path.empty() ? name_ : name_ / path; }

  /// open(2); the last part of the path must be no link either.
  Fd open(const std::string& path, int flags, mode_t mode = 0600) const;
  /// Absence is nullopt.
  std::optional<Fd> open_if_exists(const std::string& path, int flags) const;
  /// lstat(2).
  std::optional<struct stat> status_of(const std::string& path) const;
  std::optional<std::string> link_target(const std::string& path) const;
  /// The whole file, or nullopt if there is none.
  std::optional<Bytes> read_file(const std::string& path) const;
  /// Sorted, without "." and "..".
  std::vector<std::string> names(const std::string& path) const;

  /// A directory of that name may be there already.
  void make_directory(const std::string& path, mode_t mode) const;
  void make_link(const std::string& target, const std::string& path) const;
  /// Replaces a file in one step; not durable. Anything else of that name stays, and is an Error.
  void replace_file(const std::string& path, View bytes, mode_t mode = 0600) const;
  void rename(const std::string& from, const std::string& to) const;
  /// A file, a link, or an empty directory. False if there is nothing.
  bool remove(const std::string& path) const;
  /// Likewise with all that is beneath it; returns how many names went. What is mounted there stays
  /// and is Error(refused).
  std::uint64_t remove_all(const std::string& path) const;
  /// lchown(2), and chmod(2) of what is no link.
  void set_owner(const std::string& path, uid_t uid, gid_t gid) const;
  void set_mode(const std::string& path, mode_t mode) const;
  /// Makes the names in a directory durable.
  void sync_names(const std::string& path) const;

 private:
  Beneath(fs::path name, Fd directory) : name_(std::move(name)), directory_(std::move(directory)) {}
  struct Leaf;
  Leaf leaf(const std::string& path) const;

  fs::path name_;
  Fd directory_;
};

/// What Beneath::open does on kernels without openat2: -1 and errno. To test one by the other.
int open_beneath_by_steps(int directory, const std::string& path, int flags, mode_t mode);

}  // namespace holdfast::base
