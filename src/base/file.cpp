#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/error.h"

namespace holdfast::base {

namespace {

std::string quoted(std::string_view verb, const fs::path& path) {
  return fmt::format("{} \"{}\"", verb, path.string());
}

bool means_absent(int error_number) {
  return error_number == ENOENT || error_number == ENOTDIR;
}

/// For reading the whole. Opening a pipe waits for a writer, whom there may never be.
std::optional<Fd> open_to_read(const fs::path& path) {
  std::optional<Fd> file = open_if_exists(path, O_RDONLY | O_NONBLOCK);
  if (!file) return std::nullopt;
  struct stat status {};
  if (::fstat(file->get(), &status) != 0) fail_errno(quoted("stat", path), errno);
  if (S_ISFIFO(status.st_mode)) {
    throw Error(Code::io, fmt::format("cannot read \"{}\": it is a pipe", path.string()));
  }
  return file;
}

}  // namespace

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::optional<Fd> open_if_exists(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd >= 0) return Fd(fd);
  if (means_absent(errno)) return std::nullopt;
  fail_errno(quoted("open", path), errno);
}

Fd open_file(const fs::path& path, int flags, mode_t mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) fail_errno(quoted("open", path), errno);
  return Fd(fd);
}

std::size_t read_at(const Fd& file, MutableView into, std::uint64_t offset, const fs::path& name) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t count = ::pread(file.get(), into.data() + done, into.size() - done,
                                  static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(quoted("read", name), errno);
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

void write_at(const Fd& file, View bytes, std::uint64_t offset, const fs::path& name) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::pwrite(file.get(), bytes.data() + done, bytes.size() - done,
                                   static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(quoted("write", name), errno);
    done += static_cast<std::size_t>(count);
  }
}

void write_all(const Fd& file, View bytes, const fs::path& name) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(quoted("write", name), errno);
    done += static_cast<std::size_t>(count);
  }
}

void sync_file(const Fd& file, const fs::path& name) {
  if (::fsync(file.get()) != 0) fail_errno(quoted("sync", name), errno);
}

void sync_directory(const fs::path& directory) {
  sync_file(open_file(directory, O_RDONLY | O_DIRECTORY), directory);
}

void sync_file_system(const fs::path& path) {
  const Fd file = open_file(path, O_RDONLY);
  if (::syncfs(file.get()) != 0) fail_errno(quoted("sync the file system of", path), errno);
}

std::uint64_t file_size(const Fd& file, const fs::path& name) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(quoted("stat", name), errno);
  return static_cast<std::uint64_t>(status.st_size);
}

std::optional<Bytes> read_file(const fs::path& path) {
  const std::optional<Fd> file = open_to_read(path);
  if (!file) return std::nullopt;
  // One byte more shows the end of an ordinary file without another allocation.
  Bytes bytes(file_size(*file, path) + 1);
  std::size_t size = 0;
  // Files of /proc and growing files say less than they hold.
  while (true) {
    const ssize_t count =
        ::pread(file->get(), bytes.data() + size, bytes.size() - size, static_cast<off_t>(size));
    if (count < 0 && errno == EINTR) continue;
    // A process that ends takes its files in /proc along, also those that are open.
    if (count < 0 && errno == ESRCH) return std::nullopt;
    if (count < 0) fail_errno(quoted("read", path), errno);
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
    if (size == bytes.size()) bytes.resize(bytes.size() + 4096);
  }
  bytes.resize(size);
  return bytes;
}

Bytes read_existing_file(const fs::path& path) {
  std::optional<Bytes> bytes = read_file(path);
  if (!bytes) fail_errno(quoted("open", path), ENOENT);
  return *std::move(bytes);
}

MappedFile::MappedFile(const fs::path& path) {
  const std::optional<Fd> opened = open_to_read(path);
  if (!opened) fail_errno(quoted("open", path), ENOENT);
  const Fd& file = *opened;
  size_ = file_size(file, path);
  if (size_ == 0) return;
  void* start = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file.get(), 0);
  if (start == MAP_FAILED) fail_errno(quoted("map", path), errno);
  start_ = static_cast<const std::uint8_t*>(start);
}

MappedFile::~MappedFile() {
  if (start_ != nullptr) ::munmap(const_cast<std::uint8_t*>(start_), size_);
}

void replace_file(const fs::path& path, View bytes, mode_t mode) {
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::string temporary = path.string() + ".tmp.XXXXXX";
  const Fd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) fail_errno(quoted("create", temporary), errno);
  try {
    write_all(file, bytes, temporary);
    if (::fchmod(file.get(), mode) != 0) fail_errno(quoted("set the mode of", temporary), errno);
    sync_file(file, temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      fail_errno(quoted("rename to", path), errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(directory);
}

void make_directories(const fs::path& directory, mode_t mode) {
  if (directory.empty() || ::mkdir(directory.c_str(), mode) == 0) {
    if (!directory.empty() && directory.has_parent_path()) sync_directory(directory.parent_path());
    return;
  }
  if (errno == EEXIST) {
    const auto status = status_of(directory);
    if (status && S_ISDIR(status->st_mode)) return;
    fail(Code::io, "could not create directory \"{}\": a file of that name exists",
         directory.string());
  }
  if (errno != ENOENT || !directory.has_parent_path() || directory.parent_path() == directory) {
    fail_errno(quoted("create directory", directory), errno);
  }
  make_directories(directory.parent_path(), mode);
  if (::mkdir(directory.c_str(), mode) != 0 && errno != EEXIST) {
    fail_errno(quoted("create directory", directory), errno);
  }
  sync_directory(directory.parent_path());
}

std::optional<struct stat> status_of(const fs::path& path, bool follow_links) {
  struct stat status {};
  const int result = follow_links ? ::stat(path.c_str(), &status) : ::lstat(path.c_str(), &status);
  if (result == 0) return status;
  if (means_absent(errno)) return std::nullopt;
  fail_errno(quoted("stat", path), errno);
}

std::optional<std::vector<std::string>> directory_names(const fs::path& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(directory.c_str()), ::closedir);
  if (!open) {
    if (means_absent(errno)) return std::nullopt;
    fail_errno(quoted("open directory", directory), errno);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(open.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) fail_errno(quoted("read directory", directory), errno);
  std::sort(names.begin(), names.end());
  return names;
}

TemporaryDirectory::TemporaryDirectory(std::string_view prefix, const fs::path& parent) {
  const fs::path base = parent.empty() ? fs::temp_directory_path() : parent;
  std::string name = (base / fmt::format("{}.XXXXXX", prefix)).string();
  if (::mkdtemp(name.data()) == nullptr) fail_errno(quoted("create directory", name), errno);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace holdfast::base
