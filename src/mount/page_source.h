#pragma once

// Pages of a backup on demand: frames are fetched from packs when somebody reads, with read-ahead,
// and the last ones are kept in a bounded cache.
//
// Several may ask for one frame at a time: it is fetched once. A frame that cannot be read, or is
// not as it was written, is an Error for each who asked, and is tried anew by the next one; nothing
// else is ever given in its place.

#include <atomic>
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "repository/pack.h"
#include "repository/repository.h"

namespace holdfast::mount {

/// Safe for several threads.
class PageSource {
 public:
  PageSource(const repository::Repository& repository, std::string directory);

  /// The bytes of a frame: whole pages. `ahead`: how many frames behind it will be wanted soon;
  /// they come with the same request.
  std::shared_ptr<const base::Bytes> frame(const repository::PackId& pack, std::uint32_t frame,
                                           std::uint32_t ahead);

  /// When somebody last waited for a frame: who works in the background gives way.
  std::chrono::steady_clock::time_point last_demand() const {
    return std::chrono::steady_clock::time_point(
        std::chrono::steady_clock::duration(last_demand_.load(std::memory_order_relaxed)));
  }

 private:
  using Key = std::pair<repository::PackId, std::uint32_t>;
  struct Kept {
    Key key;
    std::shared_ptr<const base::Bytes> bytes;
  };
  struct OpenPack {
    OpenPack(const repository::Repository& repository, const std::string& directory,
             const repository::PackId& pack)
        : id(pack), reader(repository.store(), directory, repository.protection(), pack) {}
    repository::PackId id;
    repository::PackReader reader;
    base::Decompressor decompressor;
  };

  std::shared_ptr<const base::Bytes> look_up(const Key& key);
  void keep(const Key& key, std::shared_ptr<const base::Bytes> bytes);
  std::unique_ptr<OpenPack> take_pack(const repository::PackId& pack);
  void give_back(std::unique_ptr<OpenPack> pack);
  void fetch(const Key& key, std::uint32_t ahead);

  const repository::Repository& repository_;
  const std::string directory_;
  std::mutex mutex_;
  std::condition_variable fetched_;
  std::list<Kept> kept_;  ///< the one used last is the first
  std::map<Key, std::list<Kept>::iterator> where_;
  std::set<Key> being_fetched_;
  std::list<std::unique_ptr<OpenPack>> idle_;  ///< the one used last is the first
  std::atomic<std::chrono::steady_clock::rep> last_demand_{0};
};

}  // namespace holdfast::mount
