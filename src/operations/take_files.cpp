#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <memory>

#include "base/error.h"
#include "base/workers.h"
#include "operations/copy_files.h"
#include "operations/files.h"
#include "repository/file_sets.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using repository::FileSetEntry;

/// It is more than a set may hold.
struct TooMuch {};

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

/// The names in an open directory, in the order of their paths.
std::vector<std::string> names_in(const base::Fd& directory, const std::string& path) {
  const int copy = ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, DirectoryCloser> open(copy < 0 ? nullptr : ::fdopendir(copy));
  if (!open) base::fail_errno(fmt::format("read directory \"{}\"", path), errno);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* each = ::readdir(open.get());
    if (each == nullptr) break;
    const std::string_view name = each->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    if (names.size() > max_files_entries) throw TooMuch();
  }
  if (errno != 0) base::fail_errno(fmt::format("read directory \"{}\"", path), errno);
  std::ranges::sort(names);
  return names;
}

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Nobody wrote to it since `before`. File systems tell time by the kernel's ticks, so a change in
/// the tick in which the reading began would show in no time: what is as new as that counts as
/// written to.
bool is_same(const struct stat& before, const struct stat& after, base::Timestamp began) {
  const auto tick = std::chrono::milliseconds(20);
  const std::int64_t latest = std::chrono::nanoseconds((began - tick).time_since_epoch()).count();
  return nanoseconds(after.st_ctim) < latest && before.st_size == after.st_size &&
         nanoseconds(before.st_mtim) == nanoseconds(after.st_mtim) &&
         nanoseconds(before.st_ctim) == nanoseconds(after.st_ctim);
}

/// Goes once through what is to be taken. Names are followed by descriptors, and no link is: who
/// may write there must not have us read what only we may.
class Taker {
 public:
  /// `writer`: nullptr to look only at how much it is.
  Taker(const FilesConfiguration& files, repository::FileSetWriter* writer,
        base::Progress& progress)
      : files_(files), writer_(writer), progress_(progress) {
    summary_.path = files.path;
  }

  const repository::FileSetSummary& take(base::Fd top) {
    struct stat status {};
    look(top, files_.path.string(), status);
    take_open(std::move(top), "", status);
    return summary_;
  }

 private:
  static void look(const base::Fd& file, const std::string& name, struct stat& status) {
    if (::fstat(file.get(), &status) != 0) {
      base::fail_errno(fmt::format("look at \"{}\"", name), errno);
    }
  }
  std::string name_of(const std::string& path) const {
    return path.empty() ? files_.path.string() : (files_.path / path).string();
  }

  void take_open(base::Fd file, const std::string& path, const struct stat& status) {
    if (S_ISREG(status.st_mode)) return take_file(file, path, status);
    if (!S_ISDIR(status.st_mode)) return leave_out(path, "it is neither file, directory nor link");
    const std::vector<std::string> names = names_in(file, name_of(path));
    add(FileSetEntry::Kind::directory, path, status);
    for (const std::string& each : names) {
      base::stop_if_interrupted();
      take_name(file, each, path.empty() ? each : path + "/" + each);
    }
  }

  void take_name(const base::Fd& directory, const std::string& name, const std::string& path) {
    try {
      struct stat status {};
      if (::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return give_up(path, errno);
      }
      if (S_ISLNK(status.st_mode)) return take_link(directory, name, path, status);
      if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        return leave_out(path, "it is neither file, directory nor link");
      }
      base::Fd file(::openat(directory.get(), name.c_str(),
                             O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
      if (!file) return give_up(path, errno);
      look(file, name_of(path), status);
      take_open(std::move(file), path, status);
    } catch (const Error& error) {
      if (is_ours_ || error.code() == Code::interrupted) throw;
      leave_out(path, error.message());
    }
  }

  /// What went while we came is not missed.
  void give_up(const std::string& path, int error) {
    if (error != ENOENT) leave_out(path, std::generic_category().message(error));
  }
  void leave_out(const std::string& path, const std::string& why) {
    if (writer_ == nullptr) return;
    constexpr std::uint64_t said = 5;
    if (++summary_.left_out <= said) {
      progress_.warn("files {}: left out \"{}\": {}", files_.name, name_of(path), why);
    }
  }

  void take_link(const base::Fd& directory, const std::string& name, const std::string& path,
                 const struct stat& status) {
    std::array<char, 4096> target{};
    const ssize_t size = ::readlinkat(directory.get(), name.c_str(), target.data(), target.size());
    if (size < 0) return give_up(path, errno);
    add(FileSetEntry::Kind::link, path, status, {},
        std::string(target.data(), static_cast<std::size_t>(size)));
  }

  void take_file(const base::Fd& file, const std::string& path, const struct stat& before) {
    if (writer_ == nullptr) {
      count(static_cast<std::uint64_t>(before.st_size));
      return add(FileSetEntry::Kind::file, path, before);
    }
    const std::string name = name_of(path);
    const base::Timestamp began = base::now();
    buffer_.resize(repository::FileSetWriter::piece_bytes);
    std::uint64_t size = base::read_at(file, buffer_, 0, name);
    count(size);
    add(FileSetEntry::Kind::file, path, before, base::View(buffer_).first(size));
    bool is_whole = true;
    for (std::size_t got = size; got == buffer_.size(); size += got) {
      try {
        got = base::read_at(file, buffer_, size, name);
      } catch (const Error& error) {
        leave_out(path, "its end: " + error.message());
        is_whole = false;
        break;
      }
      count(got);
      if (got > 0) store([&] { writer_->add_more(base::View(buffer_).first(got)); });
    }
    struct stat after {};
    look(file, name, after);
    if (!is_whole || is_same(before, after, began)) return;
    ++summary_.changed;
    progress_.warn("files {}: \"{}\" was written to while it was read", files_.name, name);
  }

  void add(FileSetEntry::Kind kind, const std::string& path, const struct stat& status,
           base::View content = {}, const std::string& target = {}) {
    if (++summary_.entries > max_files_entries) throw TooMuch();
    if (writer_ == nullptr) return;
    const FileSetEntry entry{kind,
                             path,
                             status.st_mode & 07777U,
                             name_of_owner(status.st_uid, status.st_gid),
                             nanoseconds(status.st_mtim),
                             target};
    store([&] { writer_->add(entry, content); });
  }
  void count(std::uint64_t bytes) {
    summary_.bytes += bytes;
    if (summary_.bytes > max_files_bytes) throw TooMuch();
    if (writer_ != nullptr) progress_.add(bytes);
  }
  /// A repository that fails is no reason to leave out a file, but to take none.
  void store(const std::function<void()>& work) {
    is_ours_ = true;
    work();
    is_ours_ = false;
  }

  const FilesConfiguration& files_;
  repository::FileSetWriter* writer_;
  base::Progress& progress_;
  repository::FileSetSummary summary_;
  base::Bytes buffer_;
  bool is_ours_ = false;
};

TakenFiles take_set(const Site& site, const repository::ClusterPlace& place,
                    const repository::BackupId& backup, const FilesConfiguration& files,
                    base::Progress& progress) {
  TakenFiles taken;
  taken.name = files.name;
  const auto open = [&] {
    return base::open_if_exists(files.path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  };
  auto top = open();
  if (!top) {
    taken.note = fmt::format("\"{}\" is not there", files.path.string());
    return taken;
  }
  progress.begin("taking files " + files.name,
                 Taker(files, nullptr, progress).take(std::move(*top)).bytes);
  top = open();
  if (!top) base::fail(Code::io, "\"{}\" went away", files.path.string());
  repository::FileSetWriter writer(site.repository, place, {backup, files.name});
  Taker taker(files, &writer, progress);
  repository::FileSetSummary summary = taker.take(std::move(*top));
  if (summary.entries == 0) base::fail(Code::refused, "there is nothing that could be taken");
  summary.taken = base::now();
  summary.until = summary.taken + files.keep;
  writer.commit(summary);
  if (summary.left_out > 0) {
    progress.warn("files {}: {} entries were left out", files.name, summary.left_out);
  }
  taken.entries = summary.entries;
  taken.bytes = summary.bytes;
  return taken;
}

}  // namespace

std::vector<TakenFiles> take_files(const Site& site, const repository::ClusterPlace& place,
                                   const repository::BackupId& backup, base::Progress& progress) {
  std::vector<TakenFiles> all;
  for (const FilesConfiguration& files : site.configuration.files) {
    const auto fail = [&](const std::string& why) {
      progress.warn("could not take files {} along: {}", files.name, why);
      all.push_back({files.name, 0, 0, why});
    };
    try {
      all.push_back(take_set(site, place, backup, files, progress));
    } catch (const TooMuch&) {
      fail(fmt::format("\"{}\" is more than {} or {} entries", files.path.string(),
                       base::size_text(max_files_bytes), max_files_entries));
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      fail(error.message());
    }
  }
  return all;
}

}  // namespace holdfast::operations
