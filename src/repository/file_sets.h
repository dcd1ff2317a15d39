#pragma once

// Sets of files that went along with a backup: clusters/NAME/SYSTEMID/files/BACKUPID/SET, one
// container each (docs/format.md).
//
// A set is written and read as it comes, a frame at a time, so it may be larger than memory. Its
// last frame says what it is; without that it is damaged. The name is part of what is sealed: a set
// under another backup's or cluster's name does not open. Here nothing is known of file systems,
// but one thing: a path or an order of paths in which something could lead elsewhere is corrupt.

#include <optional>
#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

/// One file, directory or symbolic link. The path of the set itself is empty.
struct FileSetEntry {
  enum class Kind : std::uint8_t { file = 1, directory = 2, link = 3 };
  Kind kind = Kind::file;
  std::string path;
  std::uint32_t mode = 0;    ///< permission bits
  std::string owner;         ///< "user:group"
  std::int64_t changed = 0;  ///< when, in nanoseconds since 1970
  std::string target;        ///< of a link
  bool operator==(const FileSetEntry&) const = default;
};

/// What the last frame says.
struct FileSetSummary {
  std::string path;  ///< what was taken
  base::Timestamp taken;
  base::Timestamp until;  ///< it stays at least as long
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  std::uint64_t left_out = 0;
  std::uint64_t changed = 0;  ///< files that were written to while they were read
  bool operator==(const FileSetSummary&) const = default;
};

/// Which set.
struct FileSetName {
  BackupId backup;
  std::string name;
  bool operator==(const FileSetName&) const = default;
};

class FileSetWriter {
 public:
  /// A piece of a file's content is not longer.
  static constexpr std::size_t piece_bytes = 1 << 20;

  FileSetWriter(const Repository& repository, const ClusterPlace& place, const FileSetName& name);
  /// `content`: the first piece, of a file.
  void add(const FileSetEntry& entry, base::View content);
  /// The next piece of the file that was added last.
  void add_more(base::View content);
  /// The set exists when this returns; not before, and not without.
  void commit(const FileSetSummary& summary);

 private:
  base::Compressor compressor_;
  ContainerWriter container_;
};

class FileSetReader {
 public:
  /// Throws Error(not_found) if there is no such set, Error(corrupt) if it is not as it was
  /// written.
  FileSetReader(const Repository& repository, const ClusterPlace& place, const FileSetName& name);

  const FileSetSummary& summary() const { return summary_; }
  /// The next entry, or nullopt at the end, once the summary was confirmed. `content` is its first
  /// piece, until the next call.
  std::optional<FileSetEntry> next(base::View& content);
  /// The next piece of the file that came last; nullopt if it has no more.
  std::optional<base::View> more();
  std::uint64_t stored_bytes() const { return container_.size(); }

 private:
  void read_frame();
  void check_order(const FileSetEntry& entry);
  [[noreturn]] void corrupt(std::string_view why) const;

  std::string object_;
  ContainerReader container_;
  base::Decompressor decompressor_;
  FileSetSummary summary_;
  std::uint32_t frame_ = 0;        ///< the next one
  base::Bytes bytes_;              ///< the current one
  std::vector<std::string> open_;  ///< the directories that lead to the last entry
  std::string last_;
  bool in_file_ = false;
  std::uint64_t entries_ = 0;
  std::uint64_t seen_bytes_ = 0;
};

/// The sets of a system, whether they can be read or not.
std::vector<FileSetName> file_sets(const Repository& repository, const ClusterPlace& place);
/// The name of its object.
std::string object_of(const ClusterPlace& place, const FileSetName& name);

}  // namespace holdfast::repository
