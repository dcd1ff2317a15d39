#pragma once

// The files of a mounted backup as those who use them see them: the backup's, with everything that
// was changed since laid over it.
//
// What was changed or read is in a local directory that has the same shape. A name means the local
// file if there is one, else the backup's unless it is gone; directories are all local. Nothing is
// left of the mount once every file of the backup is local and ordinary: the local directory then
// is what the user asked to have restored.
//
// It answers as POSIX does: 0 or a count, or a negative errno for what the caller did; failures of
// the repository or of the disk are Errors, which say EIO to the caller and the reason to the log.
// Several threads may call it. It knows nothing of FUSE, and almost nothing of PostgreSQL: some
// paths are treated specially, and TreeOptions says which.

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <shared_mutex>
#include <string>

#include "mount/backed_file.h"
#include "mount/image.h"

namespace holdfast::mount {

struct TreeOptions {
  base::fs::path local;    ///< the directory that everything becomes local in
  base::fs::path journal;  ///< the file of the Journal
  base::fs::path mounted;  ///< where users see the tree: what links into it lead to
  /// A file that is kept elsewhere, so that the local directory alone is not taken for whole.
  std::string aside;
  base::fs::path aside_local;
  /// A directory that users reach directly, as a link out of the mount: the backup has nothing in
  /// it.
  std::string direct;
  /// Directories of the backup that belong elsewhere in the end, by their path
  /// ("pg_tblspc/16390"). As long as they are mounted that path is a link to
  /// `linked_below`/NAME, where their files are seen.
  std::map<std::string, base::fs::path> linked;
  std::string linked_below = "holdfast.tablespaces";
  /// Who makes this file relies on everything written before being durable.
  std::string barrier;
};

/// Who asks, for what is created.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
};

class Tree {
 public:
  Tree(const Image& image, PageSource& source, TreeOptions options);

  /// An open file: one of the backup that is not ordinary yet, or an ordinary one.
  struct Handle {
    std::shared_ptr<BackedFile> backed;
    base::Fd file;
    int descriptor() const { return backed ? backed->descriptor() : file.get(); }
  };

  // Names. Paths are relative, "" is the top.
  int attributes(const std::string& path, struct stat& out);
  int attributes(const Handle& handle, struct stat& out);
  using Visit = std::function<void(const std::string& name, const struct stat& status)>;
  /// Of the status only type and inode are told.
  int list(const std::string& path, const Visit& visit);
  int open(const std::string& path, int flags, Handle& out);
  int create(const std::string& path, int flags, mode_t mode, Caller caller, Handle& out);
  int remove(const std::string& path);
  int rename(const std::string& from, const std::string& to, unsigned flags);
  int make_directory(const std::string& path, mode_t mode, Caller caller);
  int remove_directory(const std::string& path);
  int make_link(const std::string& target, const std::string& path, Caller caller);
  int read_link(const std::string& path, std::string& target);
  int change_mode(const std::string& path, mode_t mode);
  int change_owner(const std::string& path, uid_t uid, gid_t gid);
  int change_times(const std::string& path, const struct timespec times[2]);
  int truncate(const std::string& path, std::uint64_t size);
  int sync_directory(const std::string& path);
  int file_system(struct statvfs& out) const;

  // Open files.
  int read(const Handle& handle, base::MutableView into, std::uint64_t offset);
  int write(const Handle& handle, base::View bytes, std::uint64_t offset);
  int truncate(const Handle& handle, std::uint64_t size);
  int allocate(const Handle& handle, std::uint64_t offset, std::uint64_t length);
  int sync(const Handle& handle);

  /// For the hydrator: a file of the backup that is still wanted from it; nullptr if it is gone or
  /// ordinary.
  std::shared_ptr<BackedFile> unfinished(const std::shared_ptr<const repository::FileEntry>& entry);
  /// Makes all durable that was written before, and files that are whole ordinary ones.
  void checkpoint();

 private:
  /// A path as the backup and as the local directory have it.
  struct Place {
    std::string key;
    base::fs::path local;
  };
  Place place(const std::string& path) const;
  std::shared_ptr<const repository::FileEntry> in_backup(const std::string& key) const;
  std::shared_ptr<BackedFile> backed(const Place& place,
                                     std::shared_ptr<const repository::FileEntry> entry);
  int find(const Place& place, std::shared_ptr<BackedFile>& backed);
  int open_locked(const Place& place, int flags, Handle& out);
  void record_gone(const Place& place);
  int make_ordinary(const Place& place);
  int with_local(const std::string& path, const std::function<int(const base::fs::path&)>& work);
  void present(const repository::FileEntry& entry, struct stat& out) const;
  void sync_all_local() const;

  const Image& image_;
  PageSource& source_;
  const TreeOptions options_;
  Journal journal_;
  struct stat top_ {};
  mutable std::mutex owners_mutex_;
  mutable std::map<std::string, std::pair<uid_t, gid_t>> owners_;

  std::shared_mutex names_mutex_;  ///< held exclusively while names change
  std::set<std::string> gone_;
  std::mutex files_mutex_;
  std::map<std::string, std::shared_ptr<BackedFile>> files_;  ///< not ordinary yet, by key
  std::mutex checkpoint_mutex_;
};

}  // namespace holdfast::mount
