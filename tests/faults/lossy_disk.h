#pragma once

// A file system that keeps after a power cut only what was synced, and does as it is told: it kills
// who calls it at the N-th change, fails that change, or hangs.
//
// It lives in memory, served through FUSE by threads of the test itself. Each file has its bytes
// and those of its last fsync, each directory its names and those of its last fsync; cut() goes
// back to the latter. So a name whose directory was not synced is gone, whatever was synced of the
// file; a file whose name was synced and whose bytes were not is there, with zeros or without any;
// a rename or removal that was not synced is undone. Owners, modes and times are never lost, which
// is the one kindness.
//
// An fsync that failed leaves its bytes unsynced for ever, as Linux does: the next fsync says
// "done", and means only what is written after it.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "harness/harness.h"

struct fuse;

namespace holdfast::tests {

class LossyDisk {
 public:
  /// What changes something, or makes a change durable.
  enum class Change { create, write, truncate, make_directory, link, rename, remove, sync, names };

  /// What becomes of the `at`-th of these changes (all kinds if none is named) from now on.
  struct Fault {
    std::uint64_t at = 0;  ///< counts from 1; 0: never
    int error = 0;         ///< it fails with this; 0: whoever asks is killed, and the disk with him
    bool for_ever = false;     ///< all later ones fail as well
    std::set<Change> of = {};  ///< which are counted
  };

  /// What becomes of the bytes of a file that were not synced.
  enum class Unsynced { empty, zeros, luck };

  /// Is there what it needs? Tests skip themselves if not: this is said then.
  static std::optional<std::string> missing();

  LossyDisk(const Place& place, const fs::path& where);
  ~LossyDisk();
  LossyDisk(const LossyDisk&) = delete;
  LossyDisk& operator=(const LossyDisk&) = delete;

  /// Counting begins anew.
  void plan(const Fault& fault);
  /// Changes since plan().
  std::uint64_t count() const;
  /// Has the fault happened?
  bool fired() const;

  /// The power goes and comes back. With `luck` each change that was not synced may have become
  /// durable or not, by `seed`: a disk writes when it likes.
  void cut(Unsynced bytes = Unsynced::zeros, unsigned seed = 0);
  /// All that is there is durable now.
  void settle();
  /// After a kill: as it was at that moment, nothing is lost.
  void revive();

  /// From now on (but for `spared` changes more) everything that is asked waits, until release().
  void hang(std::uint64_t spared = 0);
  void release();
  /// How many wait.
  int waiting() const;
  /// From now on every look at something, each read too, takes so long.
  void slow(std::chrono::milliseconds each);

  /// Everything as it is, and back to it.
  void keep();
  void put_back();

  struct Node;
  struct Calls;

 private:
  friend struct Calls;
  using Number = std::uint64_t;
  using State = std::map<Number, Node>;

  int before(Change change, std::unique_lock<std::mutex>& lock);
  int look(std::unique_lock<std::mutex>& lock);
  void wait_while_hung(std::unique_lock<std::mutex>& lock);
  Node* find(const char* path);
  Node* at(Number number);
  Node& add(const char* path, unsigned mode);
  void drop_unreachable();

  fs::path where_;
  std::unique_ptr<State> nodes_;
  std::unique_ptr<State> kept_;
  Number next_ = 1;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Fault fault_;
  std::uint64_t count_ = 0;
  bool fired_ = false;
  bool dead_ = false;
  std::optional<std::uint64_t> hang_after_;
  std::chrono::milliseconds slowness_{0};
  int waiting_ = 0;
  fuse* fuse_ = nullptr;
  std::thread thread_;
};

}  // namespace holdfast::tests
