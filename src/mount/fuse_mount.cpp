#include "mount/fuse_mount.h"

#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <sstream>

#include "base/error.h"
#include "base/process.h"

namespace holdfast::mount {

namespace {

using Log = std::function<void(const base::Error&)>;

struct Context {
  Tree& tree;
  Log log;
};

Context& context() {
  return *static_cast<Context*>(::fuse_get_context()->private_data);
}

Caller caller() {
  const fuse_context* asked = ::fuse_get_context();
  return {asked->uid, asked->gid};
}

int errno_of(base::Code code) {
  if (code == base::Code::no_space) return ENOSPC;
  if (code == base::Code::permission) return EACCES;
  return EIO;
}

/// What libfuse calls: no exception leaves it. A page that cannot be brought is EIO, never zeros.
template <typename Work>
int answer(const Work& work) noexcept {
  try {
    return work(context().tree);
  } catch (const base::Error& error) {
    try {
      context().log(error);
    } catch (...) {  // the answer counts
    }
    return -errno_of(error.code());
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

std::string relative(const char* path) {
  return path + 1;  // without its "/"
}

Tree::Handle& handle_of(const fuse_file_info* info) {
  return *reinterpret_cast<Tree::Handle*>(info->fh);
}

template <typename Open>
int open_handle(fuse_file_info* info, const Open& open) {
  return answer([&](Tree& tree) {
    auto handle = std::make_unique<Tree::Handle>();
    const int status = open(tree, *handle);
    if (status == 0) info->fh = reinterpret_cast<std::uint64_t>(handle.release());
    return status;
  });
}

void* on_init(fuse_conn_info*, fuse_config* config) {
  config->nullpath_ok = 1;
  config->hard_remove = 1;
  config->kernel_cache = 1;
  // Nobody but us changes anything, and what we do in the background changes nothing that shows.
  config->entry_timeout = config->attr_timeout = config->negative_timeout = 86400;
  return ::fuse_get_context()->private_data;
}

int on_getattr(const char* path, struct stat* out, fuse_file_info* info) {
  return answer([&](Tree& tree) {
    return info != nullptr ? tree.attributes(handle_of(info), *out)
                           : tree.attributes(relative(path), *out);
  });
}

int on_opendir(const char* path, fuse_file_info* info) {
  return answer([&](Tree&) {
    info->fh = reinterpret_cast<std::uint64_t>(new std::string(relative(path)));
    return 0;
  });
}

const std::string& directory_of(const fuse_file_info* info) {
  return *reinterpret_cast<std::string*>(info->fh);
}

int on_readdir(const char*, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info* info,
               fuse_readdir_flags) {
  return answer([&](Tree& tree) {
    constexpr auto no_flags = static_cast<fuse_fill_dir_flags>(0);
    fill(buffer, ".", nullptr, 0, no_flags);
    fill(buffer, "..", nullptr, 0, no_flags);
    return tree.list(directory_of(info), [&](const std::string& name, const struct stat& status) {
      fill(buffer, name.c_str(), &status, 0, no_flags);
    });
  });
}

int on_releasedir(const char*, fuse_file_info* info) {
  delete reinterpret_cast<std::string*>(info->fh);
  return 0;
}

int on_fsyncdir(const char*, int, fuse_file_info* info) {
  return answer([&](Tree& tree) { return tree.sync_directory(directory_of(info)); });
}

int on_open(const char* path, fuse_file_info* info) {
  return open_handle(info, [&](Tree& tree, Tree::Handle& handle) {
    return tree.open(relative(path), info->flags, handle);
  });
}

int on_create(const char* path, mode_t mode, fuse_file_info* info) {
  return open_handle(info, [&](Tree& tree, Tree::Handle& handle) {
    return tree.create(relative(path), info->flags, mode, caller(), handle);
  });
}

int on_release(const char*, fuse_file_info* info) {
  delete &handle_of(info);
  return 0;
}

int on_read(const char*, char* into, std::size_t size, off_t offset, fuse_file_info* info) {
  return answer([&](Tree& tree) {
    return tree.read(handle_of(info), {reinterpret_cast<std::uint8_t*>(into), size},
                     static_cast<std::uint64_t>(offset));
  });
}

int on_write(const char*, const char* from, std::size_t size, off_t offset, fuse_file_info* info) {
  return answer([&](Tree& tree) {
    return tree.write(handle_of(info), {reinterpret_cast<const std::uint8_t*>(from), size},
                      static_cast<std::uint64_t>(offset));
  });
}

int on_truncate(const char* path, off_t size, fuse_file_info* info) {
  return answer([&](Tree& tree) {
    const auto wanted = static_cast<std::uint64_t>(size);
    return info != nullptr ? tree.truncate(handle_of(info), wanted)
                           : tree.truncate(relative(path), wanted);
  });
}

int on_fallocate(const char*, int mode, off_t offset, off_t length, fuse_file_info* info) {
  if (mode != 0) return -EOPNOTSUPP;
  return answer([&](Tree& tree) {
    return tree.allocate(handle_of(info), static_cast<std::uint64_t>(offset),
                         static_cast<std::uint64_t>(length));
  });
}

int on_fsync(const char*, int, fuse_file_info* info) {
  return answer([&](Tree& tree) { return tree.sync(handle_of(info)); });
}

int on_unlink(const char* path) {
  return answer([&](Tree& tree) { return tree.remove(relative(path)); });
}

int on_rename(const char* from, const char* to, unsigned flags) {
  return answer([&](Tree& tree) { return tree.rename(relative(from), relative(to), flags); });
}

int on_mkdir(const char* path, mode_t mode) {
  return answer([&](Tree& tree) { return tree.make_directory(relative(path), mode, caller()); });
}

int on_rmdir(const char* path) {
  return answer([&](Tree& tree) { return tree.remove_directory(relative(path)); });
}

int on_symlink(const char* target, const char* path) {
  return answer([&](Tree& tree) { return tree.make_link(target, relative(path), caller()); });
}

int on_readlink(const char* path, char* into, std::size_t size) {
  return answer([&](Tree& tree) {
    std::string target;
    const int status = tree.read_link(relative(path), target);
    if (status == 0) into[target.copy(into, size - 1)] = '\0';
    return status;
  });
}

int on_chmod(const char* path, mode_t mode, fuse_file_info*) {
  if (path == nullptr) return -ENOENT;
  return answer([&](Tree& tree) { return tree.change_mode(relative(path), mode); });
}

int on_chown(const char* path, uid_t uid, gid_t gid, fuse_file_info*) {
  if (path == nullptr) return -ENOENT;
  return answer([&](Tree& tree) { return tree.change_owner(relative(path), uid, gid); });
}

int on_utimens(const char* path, const struct timespec times[2], fuse_file_info*) {
  if (path == nullptr) return -ENOENT;
  return answer([&](Tree& tree) { return tree.change_times(relative(path), times); });
}

int on_statfs(const char*, struct statvfs* out) {
  return answer([&](Tree& tree) { return tree.file_system(*out); });
}

fuse_operations operations() {
  fuse_operations all{};
  all.init = on_init;
  all.getattr = on_getattr;
  all.opendir = on_opendir;
  all.readdir = on_readdir;
  all.releasedir = on_releasedir;
  all.fsyncdir = on_fsyncdir;
  all.open = on_open;
  all.create = on_create;
  all.release = on_release;
  all.read = on_read;
  all.write = on_write;
  all.truncate = on_truncate;
  all.fallocate = on_fallocate;
  all.fsync = on_fsync;
  all.unlink = on_unlink;
  all.rename = on_rename;
  all.mkdir = on_mkdir;
  all.rmdir = on_rmdir;
  all.symlink = on_symlink;
  all.readlink = on_readlink;
  all.chmod = on_chmod;
  all.chown = on_chown;
  all.utimens = on_utimens;
  all.statfs = on_statfs;
  return all;
}

}  // namespace

struct FuseMount::Session {
  Context context;
  fuse* handle = nullptr;
};

std::optional<std::string> cannot_mount() {
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) {
    return errno == EACCES || errno == EPERM
               ? "this user may not open /dev/fuse (its mode is 0666 where everybody may mount)"
               : "this machine has no FUSE (/dev/fuse)";
  }
  ::close(device);
  if (base::running_as_root()) return std::nullopt;
  try {
    if (base::run({{"fusermount3", "--version"}, {}, {}, {}, {}}).status == 0) return std::nullopt;
  } catch (const base::Error&) {  // there is none
  }
  return "fusermount3 is not installed (package fuse3)";
}

bool is_mounted(const base::fs::path& point) {
  const auto mounts = base::read_existing_file("/proc/self/mountinfo");
  std::istringstream lines{std::string(base::text(mounts))};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    for (int i = 0; i < 5; ++i) words >> word;
    std::string plain;  // the kernel writes blanks as \040
    for (std::size_t i = 0; i < word.size(); ++i) {
      if (word[i] == '\\' && i + 3 < word.size()) {
        plain += static_cast<char>(std::stoi(word.substr(i + 1, 3), nullptr, 8));
        i += 3;
      } else {
        plain += word[i];
      }
    }
    if (plain == point.string()) return true;
  }
  return false;
}

void clear_stale_mount(const base::fs::path& point) {
  while (is_mounted(point)) {
    if (base::running_as_root()) {
      if (::umount2(point.c_str(), MNT_DETACH) != 0) {
        base::fail_errno(fmt::format("unmount \"{}\"", point.string()), errno);
      }
    } else {
      base::run_checked({{"fusermount3", "-u", "-z", point.string()}, {}, {}, {}, {}});
    }
  }
}

FuseMount::FuseMount(Tree& tree, const base::fs::path& point, Log log)
    : session_(new Session{{tree, std::move(log)}, nullptr}) {
  std::string options = "fsname=holdfast,subtype=holdfast,default_permissions";
  if (base::running_as_root()) options += ",allow_other";
  std::string program = "holdfast";
  std::string flag = "-o";
  std::array<char*, 3> words{program.data(), flag.data(), options.data()};
  fuse_args arguments = FUSE_ARGS_INIT(static_cast<int>(words.size()), words.data());
  const fuse_operations all = operations();
  session_->handle = ::fuse_new(&arguments, &all, sizeof all, &session_->context);
  ::fuse_opt_free_args(&arguments);
  if (session_->handle == nullptr || ::fuse_mount(session_->handle, point.c_str()) != 0) {
    if (session_->handle != nullptr) ::fuse_destroy(session_->handle);
    throw base::Error(base::Code::io, fmt::format("could not mount \"{}\"", point.string()),
                      "it needs root or the package fuse3, and a kernel with FUSE; without "
                      "--instant the ordinary restore needs none of them");
  }
}

FuseMount::~FuseMount() {
  ::fuse_unmount(session_->handle);
  ::fuse_destroy(session_->handle);
}

void FuseMount::serve() {
  fuse_session* session = ::fuse_get_session(session_->handle);
  if (::fuse_set_signal_handlers(session) != 0) {
    base::fail(base::Code::io, "could not set signal handlers");
  }
  fuse_loop_config* config = ::fuse_loop_cfg_create();
  ::fuse_loop_cfg_set_max_threads(config, 64);
  ::fuse_loop_cfg_set_idle_threads(config, 16);
  ::fuse_loop_mt(session_->handle, config);
  ::fuse_loop_cfg_destroy(config);
  // Whoever asked it to end may ask again, and must not kill what now puts things in order.
  sigset_t asked;
  ::sigemptyset(&asked);
  for (const int each : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&asked, each);
  ::pthread_sigmask(SIG_BLOCK, &asked, nullptr);
  ::fuse_remove_signal_handlers(session);
}

}  // namespace holdfast::mount
