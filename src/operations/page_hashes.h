#pragma once

// The hashes of stored pages, as the packs' descriptions have them: for comparing by content what
// has no hashes in the page map. Safe for several threads.

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "repository/pack.h"
#include "repository/repository.h"

namespace holdfast::operations {

class PageHashes {
 public:
  PageHashes(const repository::Repository& repository, std::string directory)
      : repository_(repository), directory_(std::move(directory)) {}

  /// One for each slot of the pack. Empty if the pack cannot be read: then nothing equals it.
  using Hashes = std::shared_ptr<const std::vector<std::uint64_t>>;
  Hashes of(const repository::PackId& pack);

 private:
  Hashes read(const repository::PackId& pack) const;
  const repository::Repository& repository_;
  std::string directory_;
  std::mutex mutex_;
  std::map<repository::PackId, Hashes> known_;
  std::list<repository::PackId> oldest_first_;
  std::size_t slots_ = 0;
};

}  // namespace holdfast::operations
