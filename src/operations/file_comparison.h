#pragma once

// Telling for one file which of its pages the previous backup already holds.
//
// There are three ways, and none at all: by a list of the pages that may have changed (all others
// are not even read), by page LSN, and by content. Which of them is sound for which file is decided
// here, in one place (POSTGRES U1 to U8).

#include <optional>
#include <set>
#include <vector>

#include "operations/baseline.h"
#include "operations/changed_blocks.h"
#include "operations/page_hashes.h"
#include "postgres/data_directory.h"

namespace holdfast::operations {

/// What all files of a backup are compared with.
struct ComparisonBase {
  const Baseline* baseline = nullptr;      ///< nullptr: with nothing
  const ChangedBlocks* changed = nullptr;  ///< the list, if there is one
  bool trust_stamps = false;               ///< page LSNs prove something
  /// Packs that are to become empty: what is there counts as changed.
  const std::set<repository::PackId>* emptied = nullptr;
};

/// The map shards of the baseline; none without one.
const std::vector<repository::ShardReference>& previous_shards(const ComparisonBase& base);
/// The id of the baseline; empty without one.
std::string previous_id(const ComparisonBase& base);

/// One file's comparison. Belongs to the file; its const functions may be used by several threads.
class FileComparison {
 public:
  enum class Method {
    nothing,  ///< every page is stored
    content,
    stamp,
    list,
  };

  /// `previous` is the entry of the file at the same path, if there is one. `entry` is what the
  /// walk found: path, size, inode, birth.
  FileComparison(const ComparisonBase& base, std::uint32_t segment_blocks,
                 const repository::FileEntry& entry, std::optional<repository::FileEntry> previous);

  /// A file of whose pages the sender has said itself which have changed: no others come, and these
  /// are stored.
  static FileComparison of_changes(repository::FileEntry previous);

  Method method() const { return method_; }
  /// The next backup will have to compare this file by content, so its hashes are kept.
  bool keeps_hashes() const { return !is_main_fork_; }
  const repository::FileEntry* previous() const { return previous_ ? &*previous_ : nullptr; }
  /// Nothing of the file needs to be read: all of it is in the previous backup.
  bool is_unchanged() const;

  /// Pages to read of those from `first` up to `end`, as ranges in rising order.
  struct Range {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
  };
  std::vector<Range> to_read(std::uint64_t first, std::uint64_t end) const;

 private:
  FileComparison() = default;
  void list_pages(const ComparisonBase& base, std::uint32_t segment_blocks,
                  const repository::FileEntry& entry);
  std::optional<repository::FileEntry> previous_;
  Method method_ = Method::nothing;
  bool is_main_fork_ = false;
  bool same_size_ = false;
  std::vector<std::uint32_t> listed_;  ///< Method::list: these pages, rising
};

/// Goes through the pages of one file from one of them on, and says of each that was read whether
/// the previous backup holds it. Belongs to one thread.
class PageJudge {
 public:
  PageJudge(const FileComparison& file, const ComparisonBase& base, PageHashes& hashes,
            std::uint64_t first);
  /// The run (of one page) to use for page `number` as it was read, if it is the same as before.
  /// `hash` is its keyed hash (of the whole slot). Numbers rise.
  std::optional<repository::Run> same(std::uint64_t number, base::View page, std::uint64_t hash);
  /// By content: the caller must give hashes.
  bool needs_hash() const { return file_.method() == FileComparison::Method::content; }

 private:
  const repository::Run* advance(std::uint64_t number);
  bool has_hash(std::uint64_t number, const repository::Run& run, std::uint64_t hash);

  const FileComparison& file_;
  const ComparisonBase& base_;
  PageHashes& hashes_;
  std::size_t run_ = 0;
  std::uint64_t run_first_ = 0;  ///< page that run_ begins with
  std::optional<repository::PackId> hashed_pack_;
  PageHashes::Hashes pack_hashes_;
};

}  // namespace holdfast::operations
