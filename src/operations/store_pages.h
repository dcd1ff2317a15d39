#pragma once

// Storing the pages of files, wherever they were read from: one place for how a backup takes a page
// from the one before, leaves it out, or puts it into a pack.

#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "operations/file_comparison.h"
#include "repository/pack.h"
#include "repository/page_map.h"

namespace holdfast::operations {

/// What became of some pages of a file.
struct StoredPages {
  std::vector<repository::Run> runs;
  std::vector<std::uint64_t> hashes;  ///< if the file keeps them
  bool any_new = false;               ///< pages were stored by this backup

  /// Puts what became of a part behind what became of those before it.
  void add_to(repository::FileEntry& entry) const;
};

/// Used by several threads at a time.
class PageStore {
 public:
  PageStore(const repository::Repository& repository, const repository::ClusterPlace& place,
            const ComparisonBase& base);

  /// Judges the pages of a file from page `first` on.
  PageJudge judge(const FileComparison& file, std::uint64_t first);
  /// Pages in `bytes`, the first of which is page `number`.
  void store(base::View bytes, std::uint64_t number, const FileComparison& file, PageJudge& judge,
             repository::PackWriter& writer, StoredPages& to) const;
  /// A file as a whole. If it is small and the previous backup did not have it, and this one has an
  /// equal one, nothing is stored.
  StoredPages store_file(base::View bytes, const FileComparison& file,
                         repository::PackWriter& writer);
  /// Is a file worth the look at equal ones?
  static bool may_be_known(std::uint64_t size, const FileComparison& file);

 private:
  using Runs = std::vector<repository::Run>;
  std::optional<Runs> find_known(const base::Hash128& hash);
  void remember(const base::Hash128& hash, const Runs& runs);
  std::uint64_t hash_of(base::View page) const;

  struct Low {
    std::size_t operator()(const base::Hash128& hash) const { return hash.low; }
  };
  const repository::Repository& repository_;
  const ComparisonBase& base_;
  PageHashes hashes_;
  std::mutex mutex_;  // guards known_
  std::unordered_map<base::Hash128, Runs, Low> known_;
};

}  // namespace holdfast::operations
