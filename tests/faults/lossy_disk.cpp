#include "lossy_disk.h"

#define FUSE_USE_VERSION 35
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "base/error.h"

namespace holdfast::tests {

using Names = std::map<std::string, std::uint64_t>;
/// Shared by copies of the state until one of them changes it.
using Bytes = std::shared_ptr<std::string>;

/// A file or a directory: as it is, and as it was synced.
struct LossyDisk::Node {
  Number number = 0;
  struct stat status {};
  Bytes bytes = std::make_shared<std::string>();
  Bytes synced_bytes;  ///< nullptr: never
  Names names;
  Names synced_names;
  bool failed = false;  ///< an fsync failed, and nothing was written since

  bool is_directory() const { return S_ISDIR(status.st_mode); }
  std::string& to_write() {
    if (bytes.use_count() > 1) bytes = std::make_shared<std::string>(*bytes);
    failed = false;
    ::clock_gettime(CLOCK_REALTIME, &status.st_mtim);
    return *bytes;
  }
};

namespace {

std::string name_of(const char* path) {
  return fs::path(path).filename().string();
}

std::string parent_of(const char* path) {
  return fs::path(path).parent_path().string();
}

LossyDisk& disk() {
  return *static_cast<LossyDisk*>(::fuse_get_context()->private_data);
}

std::uint64_t number_in(const fuse_file_info* info) {
  return info == nullptr ? 0 : info->fh;
}

}  // namespace

/// What the kernel asks. Each takes the lock, so they come one after the other.
struct LossyDisk::Calls {
  using Lock = std::unique_lock<std::mutex>;

  static Node* node(LossyDisk& self, const char* path, const fuse_file_info* info) {
    return info != nullptr ? self.at(number_in(info)) : self.find(path);
  }

  /// Something that only looks.
  static int look(const char* path, const fuse_file_info* info,
                  const std::function<int(Node&)>& work) {
    LossyDisk& self = disk();
    Lock lock(self.mutex_);
    if (const int error = self.look(lock); error != 0) return error;
    Node* found = node(self, path, info);
    if (found == nullptr) return info != nullptr ? -EIO : -ENOENT;
    return work(*found);
  }

  /// Something that changes, or syncs, what is there.
  static int change(Change kind, const char* path, const fuse_file_info* info,
                    const std::function<int(Node&)>& work) {
    LossyDisk& self = disk();
    Lock lock(self.mutex_);
    const int error = self.before(kind, lock);
    Node* found = node(self, path, info);
    if (found == nullptr) return info != nullptr ? -EIO : -ENOENT;
    if (error != 0) {
      if (kind == Change::sync) found->failed = true;
      return error;
    }
    return work(*found);
  }

  static int change_names(Change kind, const std::function<int(LossyDisk&)>& work) {
    LossyDisk& self = disk();
    Lock lock(self.mutex_);
    if (const int error = self.before(kind, lock); error != 0) return error;
    return work(self);
  }

  static void* init(fuse_conn_info*, fuse_config* config) {
    config->use_ino = 1;
    config->hard_remove = 1;
    config->nullpath_ok = 1;
    config->direct_io = 1;
    config->entry_timeout = 0;
    config->attr_timeout = 0;
    config->negative_timeout = 0;
    return ::fuse_get_context()->private_data;
  }

  static int getattr(const char* path, struct stat* status, fuse_file_info* info) {
    return look(path, info, [&](const Node& node) {
      *status = node.status;
      status->st_ino = node.number;
      status->st_nlink = node.is_directory() ? 2 : 1;
      status->st_size = static_cast<off_t>(node.bytes->size());
      status->st_blocks = (status->st_size + 511) / 512;
      return 0;
    });
  }

  static int readdir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t,
                     fuse_file_info* info, fuse_readdir_flags) {
    return look(path, info, [&](const Node& node) {
      fill(buffer, ".", nullptr, 0, fuse_fill_dir_flags{});
      fill(buffer, "..", nullptr, 0, fuse_fill_dir_flags{});
      for (const auto& [name, number] : node.names) {
        struct stat status = disk().at(number)->status;
        status.st_ino = number;
        fill(buffer, name.c_str(), &status, 0, fuse_fill_dir_flags{});
      }
      return 0;
    });
  }

  static int open(const char* path, fuse_file_info* info) {
    return look(path, nullptr, [&](const Node& node) {
      info->fh = node.number;
      return 0;
    });
  }

  static int create(const char* path, mode_t mode, fuse_file_info* info) {
    return change_names(Change::create, [&](LossyDisk& self) {
      if (self.find(path) != nullptr) return -EEXIST;
      info->fh = self.add(path, S_IFREG | mode).number;
      return 0;
    });
  }

  static int mkdir(const char* path, mode_t mode) {
    return change_names(Change::make_directory, [&](LossyDisk& self) {
      if (self.find(path) != nullptr) return -EEXIST;
      self.add(path, S_IFDIR | mode);
      return 0;
    });
  }

  static int read(const char* path, char* into, std::size_t size, off_t offset,
                  fuse_file_info* info) {
    return look(path, info, [&](const Node& node) {
      const auto from = static_cast<std::size_t>(offset);
      if (from >= node.bytes->size()) return 0;
      const std::size_t count = std::min(size, node.bytes->size() - from);
      std::memcpy(into, node.bytes->data() + from, count);
      return static_cast<int>(count);
    });
  }

  static int write(const char* path, const char* from, std::size_t size, off_t offset,
                   fuse_file_info* info) {
    return change(Change::write, path, info, [&](Node& node) {
      std::string& bytes = node.to_write();
      const auto at = static_cast<std::size_t>(offset);
      bytes.resize(std::max(bytes.size(), at + size));
      std::memcpy(bytes.data() + at, from, size);
      return static_cast<int>(size);
    });
  }

  static int truncate(const char* path, off_t size, fuse_file_info* info) {
    return change(Change::truncate, path, info, [&](Node& node) {
      node.to_write().resize(static_cast<std::size_t>(size));
      return 0;
    });
  }

  static int fsync(const char* path, int, fuse_file_info* info) {
    return change(Change::sync, path, info, [](Node& node) {
      if (!node.failed) node.synced_bytes = node.bytes;
      return 0;
    });
  }

  static int fsyncdir(const char* path, int, fuse_file_info* info) {
    return change(Change::names, path, info, [](Node& node) {
      node.synced_names = node.names;
      return 0;
    });
  }

  static int link(const char* from, const char* to) {
    return change_names(Change::link, [&](LossyDisk& self) {
      if (self.find(to) != nullptr) return -EEXIST;
      const Node* file = self.find(from);
      Node* parent = self.find(parent_of(to).c_str());
      if (file == nullptr || parent == nullptr) return -ENOENT;
      parent->names[name_of(to)] = file->number;
      return 0;
    });
  }

  static int rename(const char* from, const char* to, unsigned flags) {
    return change_names(Change::rename, [&](LossyDisk& self) {
      if ((flags & RENAME_NOREPLACE) != 0 && self.find(to) != nullptr) return -EEXIST;
      const Node* file = self.find(from);
      Node* parent = self.find(parent_of(to).c_str());
      if (file == nullptr || parent == nullptr) return -ENOENT;
      parent->names[name_of(to)] = file->number;
      self.find(parent_of(from).c_str())->names.erase(name_of(from));
      return 0;
    });
  }

  static int unlink(const char* path) {
    return change_names(Change::remove, [&](LossyDisk& self) {
      Node* parent = self.find(parent_of(path).c_str());
      return parent != nullptr && parent->names.erase(name_of(path)) == 1 ? 0 : -ENOENT;
    });
  }

  static int rmdir(const char* path) {
    return change_names(Change::remove, [&](LossyDisk& self) {
      const Node* node = self.find(path);
      if (node == nullptr) return -ENOENT;
      if (!node->names.empty()) return -ENOTEMPTY;
      self.find(parent_of(path).c_str())->names.erase(name_of(path));
      return 0;
    });
  }

  static int chmod(const char* path, mode_t mode, fuse_file_info* info) {
    return look(path, info, [&](Node& node) {
      node.status.st_mode = (node.status.st_mode & S_IFMT) | (mode & 07777U);
      return 0;
    });
  }

  static int chown(const char* path, uid_t user, gid_t group, fuse_file_info* info) {
    return look(path, info, [&](Node& node) {
      if (user != static_cast<uid_t>(-1)) node.status.st_uid = user;
      if (group != static_cast<gid_t>(-1)) node.status.st_gid = group;
      return 0;
    });
  }

  static int utimens(const char* path, const timespec* times, fuse_file_info* info) {
    return look(path, info, [&](Node& node) {
      node.status.st_mtim = times[1];
      return 0;
    });
  }

  static int statfs(const char*, struct statvfs* status) {
    *status = {};
    status->f_bsize = status->f_frsize = 4096;
    status->f_blocks = status->f_bfree = status->f_bavail = 1 << 28;
    status->f_namemax = 255;
    return 0;
  }

  static fuse_operations table() {
    fuse_operations all{};
    all.init = init;
    all.getattr = getattr;
    all.readdir = readdir;
    all.open = open;
    all.opendir = open;
    all.create = create;
    all.mkdir = mkdir;
    all.read = read;
    all.write = write;
    all.truncate = truncate;
    all.fsync = fsync;
    all.fsyncdir = fsyncdir;
    all.link = link;
    all.rename = rename;
    all.unlink = unlink;
    all.rmdir = rmdir;
    all.chmod = chmod;
    all.chown = chown;
    all.utimens = utimens;
    all.statfs = statfs;
    return all;
  }
};

std::optional<std::string> LossyDisk::missing() {
  if (::access("/dev/fuse", R_OK | W_OK) == 0) return std::nullopt;
  return fmt::format("these tests need FUSE: /dev/fuse: {}", std::strerror(errno));
}

LossyDisk::LossyDisk(const Place& place, const fs::path& where)
    : where_(where), nodes_(std::make_unique<State>()) {
  fs::create_directories(where);
  place.give_to_server_user(where);
  Node root;
  root.number = next_++;
  root.status.st_mode = S_IFDIR | 0700;
  struct stat own {};
  ::stat(where.c_str(), &own);
  root.status.st_uid = own.st_uid;
  root.status.st_gid = own.st_gid;
  nodes_->emplace(root.number, root);

  const std::string options = std::string("default_permissions,fsname=lossy_disk") +
                              (::geteuid() == 0 ? ",allow_other" : "");
  std::array<std::string, 3> words{"lossy_disk", "-o", options};
  std::array<char*, 3> arguments{words[0].data(), words[1].data(), words[2].data()};
  fuse_args all{3, arguments.data(), 0};
  const fuse_operations table = Calls::table();
  fuse_ = ::fuse_new(&all, &table, sizeof table, this);
  if (fuse_ == nullptr || ::fuse_mount(fuse_, where.c_str()) != 0) {
    throw std::runtime_error("could not mount a file system through FUSE");
  }
  thread_ = std::thread([this] {
    fuse_loop_config config{};
    config.max_idle_threads = 10;
    ::fuse_loop_mt(fuse_, &config);
  });
}

LossyDisk::~LossyDisk() {
  release();
  revive();
  ::fuse_exit(fuse_);
  // The loop looks whether it shall end when it has answered something; whoever asked for more is
  // answered by the end of the session.
  std::thread asks([this] {
    struct stat ignored {};
    ::stat((where_ / "end").c_str(), &ignored);
  });
  thread_.join();
  ::fuse_unmount(fuse_);
  asks.join();
  ::fuse_destroy(fuse_);
}

void LossyDisk::plan(const Fault& fault) {
  const std::lock_guard lock(mutex_);
  fault_ = fault;
  count_ = 0;
  fired_ = false;
}

std::uint64_t LossyDisk::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

bool LossyDisk::fired() const {
  const std::lock_guard lock(mutex_);
  return fired_;
}

void LossyDisk::cut(Unsynced bytes, unsigned seed) {
  const std::lock_guard lock(mutex_);
  std::mt19937 random(seed);
  const auto lucky = [&] { return bytes == Unsynced::luck && random() % 2 == 0; };
  for (auto& [number, node] : *nodes_) {
    if (node.is_directory()) {
      Names all = node.synced_names;
      for (const auto& [name, target] : node.names) {
        if (lucky()) all[name] = target;
      }
      for (const auto& [name, target] : node.synced_names) {
        if (!node.names.contains(name) && lucky()) all.erase(name);
      }
      node.names = node.synced_names = std::move(all);
    } else if (!lucky()) {
      if (!node.synced_bytes) {
        const std::size_t size = bytes == Unsynced::empty ? 0 : node.bytes->size();
        node.synced_bytes = std::make_shared<std::string>(size, '\0');
      }
      node.bytes = node.synced_bytes;
    }
    node.synced_bytes = node.bytes;
    node.failed = false;
  }
  drop_unreachable();
  dead_ = false;
  fault_ = {};
}

void LossyDisk::settle() {
  const std::lock_guard lock(mutex_);
  for (auto& [number, node] : *nodes_) {
    node.synced_bytes = node.bytes;
    node.synced_names = node.names;
  }
}

void LossyDisk::revive() {
  const std::lock_guard lock(mutex_);
  dead_ = false;
  fault_ = {};
}

void LossyDisk::hang(std::uint64_t spared) {
  const std::lock_guard lock(mutex_);
  hang_after_ = count_ + spared;
}

void LossyDisk::release() {
  const std::lock_guard lock(mutex_);
  hang_after_.reset();
  changed_.notify_all();
}

int LossyDisk::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

void LossyDisk::keep() {
  const std::lock_guard lock(mutex_);
  kept_ = std::make_unique<State>(*nodes_);
}

void LossyDisk::put_back() {
  const std::lock_guard lock(mutex_);
  *nodes_ = *kept_;
  dead_ = false;
}

void LossyDisk::wait_while_hung(std::unique_lock<std::mutex>& lock) {
  const auto hung = [&] { return hang_after_ && count_ >= *hang_after_; };
  if (!hung()) return;
  ++waiting_;
  changed_.wait(lock, [&] { return !hung(); });
  --waiting_;
}

void LossyDisk::slow(std::chrono::milliseconds each) {
  const std::lock_guard lock(mutex_);
  slowness_ = each;
}

int LossyDisk::look(std::unique_lock<std::mutex>& lock) {
  wait_while_hung(lock);
  if (slowness_.count() > 0) {
    const auto each = slowness_;
    lock.unlock();
    std::this_thread::sleep_for(each);
    lock.lock();
  }
  return dead_ ? -EIO : 0;
}

int LossyDisk::before(Change change, std::unique_lock<std::mutex>& lock) {
  wait_while_hung(lock);
  if (dead_) return -EIO;
  if (!fault_.of.empty() && !fault_.of.contains(change)) return 0;
  ++count_;
  const bool now = fault_.at == count_ || (fault_.for_ever && fired_);
  if (!now) return 0;
  fired_ = true;
  if (fault_.error != 0) return -fault_.error;
  dead_ = true;
  ::kill(::fuse_get_context()->pid, SIGKILL);
  return -EIO;
}

LossyDisk::Node* LossyDisk::at(Number number) {
  const auto found = nodes_->find(number);
  return found == nodes_->end() ? nullptr : &found->second;
}

LossyDisk::Node* LossyDisk::find(const char* path) {
  Node* node = at(1);
  for (const fs::path& part : fs::path(path).relative_path()) {
    const auto found = node->names.find(part.string());
    node = found == node->names.end() ? nullptr : at(found->second);
    if (node == nullptr) return nullptr;
  }
  return node;
}

LossyDisk::Node& LossyDisk::add(const char* path, unsigned mode) {
  Node node;
  node.number = next_++;
  node.status.st_mode = mode;
  node.status.st_uid = ::fuse_get_context()->uid;
  node.status.st_gid = ::fuse_get_context()->gid;
  ::clock_gettime(CLOCK_REALTIME, &node.status.st_mtim);
  find(parent_of(path).c_str())->names[name_of(path)] = node.number;
  return nodes_->emplace(node.number, std::move(node)).first->second;
}

void LossyDisk::drop_unreachable() {
  std::set<Number> reached;
  const std::function<void(Number)> reach = [&](Number number) {
    if (!reached.insert(number).second) return;
    for (const auto& each : at(number)->names) reach(each.second);
  };
  reach(1);
  std::erase_if(*nodes_, [&](const auto& each) { return !reached.contains(each.first); });
}

}  // namespace holdfast::tests
