#include "mount/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/process.h"

namespace holdfast::mount {

namespace {

using base::fs::path;
using Shared = std::shared_lock<std::shared_mutex>;
using Exclusive = std::unique_lock<std::shared_mutex>;

int checked(int result) {
  return result == 0 ? 0 : -errno;
}

bool is_unfinished(const struct stat& status) {
  return S_ISREG(status.st_mode) && (status.st_mode & unfinished_bit) != 0;
}

/// As root, what this thread creates meanwhile belongs to somebody else from its first moment on: a
/// death between making a file and giving it away would leave one that the server cannot open.
class ActAs {
 public:
  explicit ActAs(Caller caller) {
    if (!base::running_as_root()) return;
    ::setfsgid(caller.gid);
    ::setfsuid(caller.uid);
  }
  ~ActAs() {
    if (!base::running_as_root()) return;
    ::setfsuid(0);
    ::setfsgid(0);
  }
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;
};

/// open(2) flags that mean something here: the kernel does the rest of them before it asks us.
int open_flags(int flags) {
  return (flags & (O_ACCMODE | O_TRUNC)) | O_CLOEXEC | O_NOFOLLOW;
}

}  // namespace

Tree::Tree(const Image& image, PageSource& source, TreeOptions options)
    : image_(image), source_(source), options_(std::move(options)), journal_(options_.journal) {
  gone_ = journal_.opened_with().gone;
  if (::stat(options_.local.c_str(), &top_) != 0) {
    base::fail_errno(fmt::format("open \"{}\"", options_.local.string()), errno);
  }
  // Death between recording that a file is gone and removing what was local of it.
  for (const std::string& key : gone_) {
    const path local = place(key).local;
    const auto status = base::status_of(local, false);
    if (status && is_unfinished(*status)) base::fs::remove(local);
  }
}

Tree::Place Tree::place(const std::string& asked) const {
  if (asked == options_.aside) return {asked, options_.aside_local};
  std::string key = asked;
  const std::string below = options_.linked_below + "/";
  for (const auto& [directory, location] : options_.linked) {
    const std::string seen = below + directory.substr(directory.rfind('/') + 1);
    if (asked == seen) return {directory, location};
    if (asked.starts_with(seen + "/")) key = directory + asked.substr(seen.size());
    if (key.starts_with(directory + "/")) return {key, location / key.substr(directory.size() + 1)};
  }
  return {key, options_.local / key};
}

/// With the names locked.
std::shared_ptr<const repository::FileEntry> Tree::in_backup(const std::string& key) const {
  if (gone_.contains(key)) return nullptr;
  return image_.find(key);
}

void Tree::present(const repository::FileEntry& entry, struct stat& out) const {
  out = top_;
  out.st_mode = S_IFREG | entry.mode;
  out.st_nlink = 1;
  out.st_size = static_cast<off_t>(entry.size);
  out.st_blocks = static_cast<blkcnt_t>((entry.size + 511) / 512);
  if (!base::running_as_root()) return;
  const std::lock_guard lock(owners_mutex_);
  auto known = owners_.find(entry.owner);
  if (known == owners_.end()) {
    const auto owner = base::find_owner(entry.owner);
    known = owners_.emplace(entry.owner, owner.value_or(std::pair(top_.st_uid, top_.st_gid))).first;
  }
  std::tie(out.st_uid, out.st_gid) = known->second;
}

/// The file's object, made if it is needed; with the files' mutex held.
std::shared_ptr<BackedFile> Tree::backed(const Place& at,
                                         std::shared_ptr<const repository::FileEntry> entry) {
  const auto known = files_.find(at.key);
  if (known != files_.end()) return known->second;
  auto made = base::open_if_exists(at.local, O_RDWR | O_NOFOLLOW);
  if (!made) {
    const mode_t mode = entry->mode | unfinished_bit;
    struct stat wanted {};
    present(*entry, wanted);
    {
      const ActAs owner({wanted.st_uid, wanted.st_gid});
      made = base::open_file(at.local, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    }
    if (::fchmod(made->get(), mode) != 0) {
      base::fail_errno(fmt::format("set the mode of \"{}\"", at.local.string()), errno);
    }
  }
  const auto& states = journal_.opened_with().files;
  const auto state = states.find(at.key);
  auto file = std::make_shared<BackedFile>(
      std::move(entry), at.local, std::move(*made),
      state == states.end() ? Journal::FileState{} : state->second, source_, journal_);
  files_.emplace(at.key, file);
  return file;
}

/// What a name means: 0 and `backed`, 0 and nullptr for an ordinary local file (or anything else
/// that is local), or -ENOENT. With the names locked.
int Tree::find(const Place& at, std::shared_ptr<BackedFile>& found) {
  const std::lock_guard lock(files_mutex_);
  const auto known = files_.find(at.key);
  if (known != files_.end()) {
    found = known->second;
    return 0;
  }
  struct stat status {};
  const bool local = ::lstat(at.local.c_str(), &status) == 0;
  if (local && !is_unfinished(status)) return 0;
  if (!local && errno != ENOENT && errno != ENOTDIR) return -errno;
  auto entry = in_backup(at.key);
  if (entry == nullptr) return -ENOENT;
  found = backed(at, std::move(entry));
  return 0;
}

std::shared_ptr<BackedFile> Tree::unfinished(
    const std::shared_ptr<const repository::FileEntry>& entry) {
  const Shared names(names_mutex_);
  const Place at = place(entry->path);
  if (gone_.contains(at.key)) return nullptr;
  std::shared_ptr<BackedFile> found;
  if (find(at, found) != 0) return nullptr;
  return found;
}

// ---- names ----

int Tree::attributes(const std::string& asked, struct stat& out) {
  const Shared names(names_mutex_);
  const Place at = place(asked);
  std::unique_lock files(files_mutex_);  // a file that is being made has no size yet
  const int local = ::lstat(at.local.c_str(), &out);
  files.unlock();
  if (local == 0) {
    if (asked == options_.direct) out.st_mode = S_IFLNK | 0777;
    if (is_unfinished(out)) out.st_mode &= ~unfinished_bit;
    return 0;
  }
  if (errno != ENOENT && errno != ENOTDIR) return -errno;
  const auto entry = in_backup(at.key);
  if (entry == nullptr) return -ENOENT;
  present(*entry, out);
  return 0;
}

int Tree::attributes(const Handle& handle, struct stat& out) {
  if (::fstat(handle.descriptor(), &out) != 0) return -errno;
  if (is_unfinished(out)) out.st_mode &= ~unfinished_bit;
  return 0;
}

int Tree::list(const std::string& asked, const Visit& visit) {
  const Shared names(names_mutex_);
  const Place at = place(asked);
  std::set<std::string> seen;
  std::error_code failed;
  for (base::fs::directory_iterator each(at.local, failed), end; !failed && each != end;
       each.increment(failed)) {
    struct stat status {};
    const std::string name = each->path().filename();
    const auto type = each->symlink_status().type();
    status.st_mode = type == base::fs::file_type::directory ? S_IFDIR
                     : type == base::fs::file_type::symlink ? S_IFLNK
                                                            : S_IFREG;
    if (asked.empty() && name == options_.direct) status.st_mode = S_IFLNK;
    visit(name, status);
    seen.insert(name);
  }
  if (failed) return -failed.value();
  const std::string prefix = asked.empty() ? "" : asked + "/";
  if (options_.aside.starts_with(prefix) &&
      options_.aside.find('/', prefix.size()) == std::string::npos &&
      base::status_of(options_.aside_local)) {
    struct stat status {};
    status.st_mode = S_IFREG;
    visit(options_.aside.substr(prefix.size()), status);
  }
  for (const auto& entry : image_.files_in(at.key)) {
    const std::string name = entry->path.substr(entry->path.rfind('/') + 1);
    if (seen.contains(name) || gone_.contains(entry->path)) continue;
    struct stat status {};
    status.st_mode = S_IFREG;
    visit(name, status);
  }
  return 0;
}

int Tree::open_locked(const Place& at, int flags, Handle& out) {
  if (const int status = find(at, out.backed); status != 0) return status;
  if (out.backed) {
    if ((flags & O_TRUNC) != 0) out.backed->truncate(0);
    return 0;
  }
  const int opened = ::open(at.local.c_str(), open_flags(flags));
  if (opened < 0) return -errno;
  out.file = base::Fd(opened);
  return 0;
}

int Tree::open(const std::string& asked, int flags, Handle& out) {
  const Shared names(names_mutex_);
  return open_locked(place(asked), flags, out);
}

int Tree::create(const std::string& asked, int flags, mode_t mode, Caller caller, Handle& out) {
  {
    const Exclusive names(names_mutex_);
    const Place at = place(asked);
    const int opened = open_locked(at, flags, out);
    if (opened != -ENOENT) {
      if (opened == 0 && (flags & O_EXCL) != 0) return -EEXIST;
      return opened;
    }
    const ActAs owner(caller);
    const int made =
        ::open(at.local.c_str(), open_flags(flags) | O_CREAT | O_EXCL, mode & ~unfinished_bit);
    if (made < 0) return -errno;
    out.file = base::Fd(made);
  }
  if (asked == options_.barrier) checkpoint();
  return 0;
}

/// With the names locked exclusively: the backup's file of that name will never be seen again.
void Tree::record_gone(const Place& at) {
  if (gone_.contains(at.key) || image_.find(at.key) == nullptr) return;
  journal_.gone(at.key);
  journal_.sync();
  gone_.insert(at.key);
}

int Tree::remove(const std::string& asked) {
  const Exclusive names(names_mutex_);
  const Place at = place(asked);
  struct stat status {};
  const bool local = ::lstat(at.local.c_str(), &status) == 0;
  if (!local && in_backup(at.key) == nullptr) return -ENOENT;
  if (local && S_ISDIR(status.st_mode)) return -EISDIR;
  record_gone(at);
  {
    const std::lock_guard lock(files_mutex_);
    const auto known = files_.find(at.key);
    if (known != files_.end()) {
      known->second->now_nameless();
      files_.erase(known);
    }
  }
  return local ? checked(::unlink(at.local.c_str())) : 0;
}

/// Takes a file away from the backup: all of it local and durable, an ordinary file.
int Tree::make_ordinary(const Place& at) {
  std::shared_ptr<BackedFile> file;
  if (const int status = find(at, file); status != 0) return status;
  if (file == nullptr) return 0;
  file->make_whole();
  file->sync();
  file->take_mark_off();
  file->sync();
  file->now_ordinary();
  const std::lock_guard lock(files_mutex_);
  files_.erase(at.key);
  return 0;
}

int Tree::rename(const std::string& from, const std::string& to, unsigned flags) {
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) return -EINVAL;
  const Exclusive names(names_mutex_);
  const Place source = place(from);
  const Place target = place(to);
  struct stat status {};
  if (::lstat(source.local.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    // A directory that files of the backup are in cannot be moved away from under them.
    for (const auto& entry : image_.files_in(source.key)) {
      if (!gone_.contains(entry->path)) return -EXDEV;
    }
    return checked(::rename(source.local.c_str(), target.local.c_str()));
  }
  if ((flags & RENAME_NOREPLACE) != 0) {
    if (::lstat(target.local.c_str(), &status) == 0 || in_backup(target.key)) return -EEXIST;
  }
  if (const int ordinary = make_ordinary(source); ordinary != 0) return ordinary;
  // The local file of the old name counts as long as it is there; without it nothing may.
  record_gone(source);
  if (::rename(source.local.c_str(), target.local.c_str()) != 0) return -errno;
  const std::lock_guard lock(files_mutex_);
  const auto replaced = files_.find(target.key);
  if (replaced != files_.end()) {
    replaced->second->now_nameless();
    files_.erase(replaced);
  }
  return 0;
}

int Tree::make_directory(const std::string& asked, mode_t mode, Caller caller) {
  const Exclusive names(names_mutex_);
  const Place at = place(asked);
  if (in_backup(at.key) != nullptr) return -EEXIST;
  const ActAs owner(caller);
  return checked(::mkdir(at.local.c_str(), mode));
}

int Tree::remove_directory(const std::string& asked) {
  const Exclusive names(names_mutex_);
  const Place at = place(asked);
  for (const auto& entry : image_.files_in(at.key)) {
    if (!gone_.contains(entry->path)) return -ENOTEMPTY;
  }
  return checked(::rmdir(at.local.c_str()));
}

int Tree::make_link(const std::string& target, const std::string& asked, Caller caller) {
  const Exclusive names(names_mutex_);
  const Place at = place(asked);
  if (in_backup(at.key) != nullptr) return -EEXIST;
  const auto linked = options_.linked.find(asked);
  const std::string real = linked == options_.linked.end() ? target : linked->second.string();
  const ActAs owner(caller);
  return checked(::symlink(real.c_str(), at.local.c_str()));
}

int Tree::read_link(const std::string& asked, std::string& target) {
  if (asked == options_.direct) {
    target = options_.local / asked;
    return 0;
  }
  const Shared names(names_mutex_);
  std::error_code failed;
  target = base::fs::read_symlink(place(asked).local, failed);
  if (failed) return -failed.value();
  const auto linked = options_.linked.find(asked);
  if (linked != options_.linked.end() && target == linked->second) {
    target = options_.mounted / options_.linked_below / asked.substr(asked.rfind('/') + 1);
  }
  return 0;
}

/// For what changes a file's attributes: the file is local first.
int Tree::with_local(const std::string& asked, const std::function<int(const path&)>& work) {
  const Shared names(names_mutex_);
  const Place at = place(asked);
  std::shared_ptr<BackedFile> file;
  if (const int status = find(at, file); status != 0) return status;
  return checked(work(at.local));
}

int Tree::change_mode(const std::string& asked, mode_t mode) {
  return with_local(asked, [&](const path& local) {
    struct stat status {};
    if (::lstat(local.c_str(), &status) != 0) return -1;
    const mode_t mark = is_unfinished(status) ? unfinished_bit : 0;
    const mode_t wanted = S_ISREG(status.st_mode) ? mode & ~unfinished_bit : mode;
    return ::chmod(local.c_str(), (wanted & 07777) | mark);
  });
}

int Tree::change_owner(const std::string& asked, uid_t uid, gid_t gid) {
  return with_local(asked, [&](const path& local) { return ::lchown(local.c_str(), uid, gid); });
}

int Tree::change_times(const std::string& asked, const struct timespec times[2]) {
  return with_local(asked, [&](const path& local) {
    return ::utimensat(AT_FDCWD, local.c_str(), times, AT_SYMLINK_NOFOLLOW);
  });
}

int Tree::truncate(const std::string& asked, std::uint64_t size) {
  Handle handle;
  if (const int status = open(asked, O_RDWR, handle); status != 0) return status;
  return truncate(handle, size);
}

int Tree::sync_directory(const std::string& asked) {
  const Shared names(names_mutex_);
  base::sync_directory(place(asked).local);
  return 0;
}

int Tree::file_system(struct statvfs& out) const {
  return checked(::statvfs(options_.local.c_str(), &out));
}

// ---- open files ----

int Tree::read(const Handle& handle, base::MutableView into, std::uint64_t offset) {
  if (handle.backed && !handle.backed->is_whole()) {
    return static_cast<int>(handle.backed->read(into, offset));
  }
  const ssize_t got =
      ::pread(handle.descriptor(), into.data(), into.size(), static_cast<off_t>(offset));
  return got < 0 ? -errno : static_cast<int>(got);
}

int Tree::write(const Handle& handle, base::View bytes, std::uint64_t offset) {
  if (handle.backed && !handle.backed->is_whole()) {
    handle.backed->write(bytes, offset);
    return static_cast<int>(bytes.size());
  }
  const ssize_t put =
      ::pwrite(handle.descriptor(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
  return put < 0 ? -errno : static_cast<int>(put);
}

int Tree::truncate(const Handle& handle, std::uint64_t size) {
  if (handle.backed) {
    handle.backed->truncate(size);
    return 0;
  }
  return checked(::ftruncate(handle.descriptor(), static_cast<off_t>(size)));
}

int Tree::allocate(const Handle& handle, std::uint64_t offset, std::uint64_t length) {
  if (handle.backed) {
    handle.backed->allocate(offset, length);
    return 0;
  }
  return checked(
      ::fallocate(handle.descriptor(), 0, static_cast<off_t>(offset), static_cast<off_t>(length)));
}

int Tree::sync(const Handle& handle) {
  if (handle.backed) {
    handle.backed->sync();
    return 0;
  }
  // Not fdatasync: that it is an ordinary file may be news to the disk.
  return checked(::fsync(handle.descriptor()));
}

void Tree::sync_all_local() const {
  base::sync_file_system(options_.local);
  for (const auto& [directory, location] : options_.linked) base::sync_file_system(location);
}

void Tree::checkpoint() {
  const std::lock_guard only(checkpoint_mutex_);
  struct Pending {
    std::shared_ptr<BackedFile> file;
    bool whole;
    std::vector<PageRange> ranges;
  };
  std::vector<Pending> all;
  {
    const std::lock_guard lock(files_mutex_);
    for (const auto& [key, file] : files_) {
      const bool whole = file->is_whole();
      auto ranges = file->take_unrecorded();
      if (whole || !ranges.empty()) all.push_back({file, whole, std::move(ranges)});
    }
  }
  try {
    sync_all_local();
    for (const Pending& each : all) journal_.local(each.file->path(), each.ranges);
    journal_.sync();
  } catch (...) {
    for (Pending& each : all) each.file->give_back(std::move(each.ranges));
    throw;
  }
  std::erase_if(all, [](const Pending& each) { return !each.whole; });
  if (all.empty()) return;
  for (const Pending& each : all) each.file->take_mark_off();
  sync_all_local();
  const std::lock_guard lock(files_mutex_);
  for (const Pending& each : all) {
    each.file->now_ordinary();
    const auto known = files_.find(each.file->path());
    if (known != files_.end() && known->second == each.file) files_.erase(known);
  }
}

}  // namespace holdfast::mount
