#pragma once

// Brings what nobody has asked for yet, until the backup is not needed any more.
//
// It goes through the backup some files at a time and through their packs in order, so that each
// frame is fetched once, and gives way to those who wait for a page. It may be paused. What it
// brought is durable from time to time; after a death it goes on with files that were not finished.
// A store that does not answer is tried again for ever: the mount needs it anyway.

#include <atomic>
#include <functional>
#include <stop_token>

#include "mount/tree.h"
#include "repository/pack_walk.h"

namespace holdfast::mount {

class Hydrator {
 public:
  struct Progress {
    std::uint64_t done = 0;   ///< bytes that need not be brought any more
    std::uint64_t total = 0;  ///< of the backup's files
    bool complete = false;
    std::string trouble;  ///< what stands in the way just now
  };

  Hydrator(const repository::Repository& repository, std::string directory, const Image& image,
           Tree& tree, const PageSource& demand);

  /// Runs to the end, or until `stop`. `is_paused` is asked before each piece of work, `say` is
  /// told the progress now and then.
  void run(const std::stop_token& stop, const std::function<bool()>& is_paused,
           const std::function<void(const Progress&)>& say);

 private:
  struct Batch;
  void hydrate_shard(std::size_t index);
  void hydrate(Batch& batch);
  void hydrate_pack(const Batch& batch, const repository::PackId& pack,
                    std::span<const repository::PackExtent> extents);
  void give_way();
  void tell();

  const repository::Repository& repository_;
  const std::string directory_;
  const Image& image_;
  Tree& tree_;
  const PageSource& demand_;
  const std::stop_token* stop_ = nullptr;
  const std::function<bool()>* is_paused_ = nullptr;
  const std::function<void(const Progress&)>* say_ = nullptr;
  Progress progress_;
  std::uint64_t done_before_ = 0;  ///< in shards that are finished
  std::chrono::steady_clock::time_point told_;
  base::Decompressor decompressor_;
  base::Bytes buffer_;
};

}  // namespace holdfast::mount
