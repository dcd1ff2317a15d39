#include "operations/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/restore_files.h"
#include "repository/file_sets.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using repository::FileSetEntry;

void check(int result, std::string_view what, const path& name) {
  if (result != 0) base::fail_errno(fmt::format("{} \"{}\"", what, name.string()), errno);
}

timespec time_of(std::int64_t nanoseconds) {
  constexpr std::int64_t second = 1'000'000'000;
  timespec time{};
  time.tv_sec = nanoseconds / second - (nanoseconds % second < 0 ? 1 : 0);
  time.tv_nsec = nanoseconds - time.tv_sec * second;
  return time;
}

/// Writes a set below a directory of our own, which nobody else can enter. That nothing leads out
/// of it, the reader sees to: names are plain, and nothing is below a link.
class Restorer {
 public:
  Restorer(repository::FileSetReader& reader, path top) : reader_(reader), top_(std::move(top)) {}

  void run() {
    base::View content;
    while (const auto entry = reader_.next(content)) {
      base::stop_if_interrupted();
      const path name = entry->path.empty() ? top_ : top_ / entry->path;
      switch (entry->kind) {
        case FileSetEntry::Kind::directory:
          check(::mkdir(name.c_str(), 0700), "create directory", name);
          directories_.push_back(*entry);
          break;
        case FileSetEntry::Kind::link:
          check(::symlink(entry->target.c_str(), name.c_str()), "create link", name);
          finish(*entry, name);
          break;
        case FileSetEntry::Kind::file:
          write(name, content);
          finish(*entry, name);
          break;
      }
    }
    // Last, as one may be closed to us, and its time changes with what comes into it.
    for (auto each = directories_.rbegin(); each != directories_.rend(); ++each) {
      finish(*each, each->path.empty() ? top_ : top_ / each->path);
    }
  }

 private:
  void write(const path& name, base::View content) {
    const base::Fd file = base::open_file(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    base::write_all(file, content, name);
    while (const auto more = reader_.more()) base::write_all(file, *more, name);
  }
  static void finish(const FileSetEntry& entry, const path& name) {
    give_to(name, entry.owner);
    if (entry.kind != FileSetEntry::Kind::link) {
      // Nobody but root may hand on the right to act as somebody else.
      const std::uint32_t mask = base::running_as_root() ? 07777 : 0777;
      check(::chmod(name.c_str(), entry.mode & mask), "set the mode of", name);
    }
    const timespec times[2] = {time_of(entry.changed), time_of(entry.changed)};
    check(::utimensat(AT_FDCWD, name.c_str(), times, AT_SYMLINK_NOFOLLOW), "set the time of", name);
  }

  repository::FileSetReader& reader_;
  path top_;
  std::vector<FileSetEntry> directories_;
};

[[noreturn]] void refuse(const path& destination) {
  throw Error(Code::refused,
              fmt::format("cannot restore to \"{}\": it exists", destination.string()),
              "move it away, or restore somewhere else");
}

void publish(const path& made, const path& destination) {
  int result = ::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, destination.c_str(), RENAME_NOREPLACE);
  if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {  // not every file system can do that
    if (base::status_of(destination, false)) refuse(destination);
    result = ::rename(made.c_str(), destination.c_str());
  }
  if (result != 0 && errno == EEXIST) refuse(destination);
  check(result, "create", destination);
}

FilesSet read_set(const Site& site, const repository::ClusterPlace& place,
                  const repository::FileSetName& name) {
  FilesSet set{name.name, name.backup, place, false, {}, {}, {}, 0, 0, 0, 0};
  try {
    const repository::FileSetReader reader(site.repository, place, name);
    const repository::FileSetSummary& summary = reader.summary();
    set.readable = true;
    set.path = summary.path;
    set.taken = summary.taken;
    set.until = summary.until;
    set.entries = summary.entries;
    set.bytes = summary.bytes;
    set.left_out = summary.left_out;
    set.changed = summary.changed;
  } catch (const Error& error) {
    if (error.code() != Code::corrupt) throw;
  }
  return set;
}

}  // namespace

std::vector<FilesSet> list_files(const Site& site) {
  std::vector<FilesSet> all;
  for (const std::string& system : site.repository.systems(site.cluster.name)) {
    const repository::ClusterPlace place{site.cluster.name, system};
    for (const auto& name : repository::file_sets(site.repository, place)) {
      all.push_back(read_set(site, place, name));
    }
  }
  std::ranges::stable_sort(all, {}, &FilesSet::taken);
  return all;
}

FilesSet restore_files_set(const Site& site, const std::string& name,
                           const std::optional<repository::BackupId>& backup,
                           const base::fs::path& destination) {
  std::optional<FilesSet> found;
  for (FilesSet& each : list_files(site)) {  // the newest last; unreadable ones first
    if (each.name == name && (!backup || each.backup == *backup)) found = std::move(each);
  }
  if (!found) {
    throw Error(
        Code::not_found,
        fmt::format("cannot find files \"{}\"{}", name, backup ? " of backup " + backup->text : ""),
        "`holdfast files list` shows what there is");
  }
  repository::FileSetReader reader(site.repository, found->place, {found->backup, name});
  const path there = base::fs::absolute(destination).lexically_normal();
  if (base::status_of(there, false)) refuse(there);
  base::make_directories(there.parent_path(), 0755);
  const base::TemporaryDirectory private_place(".holdfast-files", there.parent_path());
  const path made = private_place.path() / "made";
  Restorer(reader, made).run();
  base::sync_file_system(private_place.path());
  publish(made, there);
  base::sync_directory(there.parent_path());
  return *found;
}

}  // namespace holdfast::operations
