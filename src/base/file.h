#pragma once

// Files of the operating system: descriptors that close themselves, whole reads and writes, and
// what it takes to make a name durable.
//
// Absence (ENOENT, ENOTDIR) is std::nullopt where it is an expected answer; every other failure is
// an Error whose code comes from errno. Nothing here retries except for EINTR.

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"

namespace holdfast::base {

namespace fs = std::filesystem;

/// Owns one file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

/// open(2) with O_CLOEXEC; absence is nullopt.
std::optional<Fd> open_if_exists(const fs::path& path, int flags);
/// open(2) with O_CLOEXEC; throws if it cannot.
Fd open_file(const fs::path& path, int flags, mode_t mode = 0600);

/// Reads at `offset` until `into` is full or the file ends; returns how much was read.
std::size_t read_at(const Fd& file, MutableView into, std::uint64_t offset, const fs::path& name);
void write_at(const Fd& file, View bytes, std::uint64_t offset, const fs::path& name);
void write_all(const Fd& file, View bytes, const fs::path& name);
void sync_file(const Fd& file, const fs::path& name);
/// Makes the names in a directory durable.
void sync_directory(const fs::path& directory);
/// Makes everything written to the file system that holds `path` durable, and reports write errors
/// that happened since the file system was last synced (Linux 5.8 and later).
void sync_file_system(const fs::path& path);
std::uint64_t file_size(const Fd& file, const fs::path& name);

/// The whole file, or nullopt if there is none.
std::optional<Bytes> read_file(const fs::path& path);
/// The whole file, which must be there.
Bytes read_existing_file(const fs::path& path);
/// A file mapped into memory: reading it copies nothing. The file must not be truncated meanwhile.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  View bytes() const { return {start_, size_}; }

 private:
  const std::uint8_t* start_ = nullptr;
  std::size_t size_ = 0;
};

/// Replaces `path` in one step, durably: temporary file beside it, fsync, rename, fsync directory.
void replace_file(const fs::path& path, View bytes, mode_t mode = 0600);
/// mkdir -p whose new names are durable.
void make_directories(const fs::path& directory, mode_t mode = 0700);

std::optional<struct stat> status_of(const fs::path& path, bool follow_links = true);
/// Names in a directory, sorted by byte value, without "." and ".."; nullopt if there is none.
std::optional<std::vector<std::string>> directory_names(const fs::path& directory);

/// A new, empty directory that goes away, with all in it, at the end of its life.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(std::string_view prefix, const fs::path& parent = {});
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace holdfast::base
