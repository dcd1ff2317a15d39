#pragma once

// WAL on its way from the stream into the repository.
//
// What is received is gathered segment by segment; a thread of its own makes it durable, so that
// receiving goes on meanwhile. Complete segments are checked and put into the archive. Of the
// segment that is still being written a slice is stored when the interval is over, at once if
// commits wait for it, and at once when somebody asks (the server at its shutdown, a signal). While
// one thing is being stored more arrives, and goes with the next: nothing waits while nothing is in
// flight.
//
// `durable()` is the end of what is in the repository without a hole, and all that may be confirmed
// to the server (INV-4). A store that fails is tried again for a while, one that is full for as
// long as it is; else, and at once if other bytes are in the way or the lease is lost, storing ends
// for good and check() throws the reason (TRAPS WR16).

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/time.h"
#include "postgres/control_file.h"
#include "repository/lease.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// Nothing could be stored for too long; the code says what the reason was.
class StoreGaveUp : public base::Error {
 public:
  using Error::Error;
};

/// Calls `work` until it succeeds. A failure that may pass is said and tried again, with pauses,
/// for as long as `patience`; then StoreGaveUp is thrown. A store that is full is waited for,
/// however long it takes, and said again each minute: somebody must make room. Any other failure,
/// and one after `stop` said so, is thrown at once.
void with_patience(std::chrono::milliseconds patience,
                   const std::function<void(const std::string&)>& say,
                   const std::function<bool()>& stop, const std::function<void()>& work);

class ReceivedWal {
 public:
  struct Options {
    std::chrono::microseconds slice_interval{std::chrono::seconds(1)};
    bool synchronous = false;  ///< slices do not wait for the interval
    std::chrono::milliseconds patience{std::chrono::minutes(1)};
    unsigned workers = 1;                                              ///< to compress with
    std::function<void(const std::string&)> say = [](const auto&) {};  ///< of several threads
  };
  ReceivedWal(const repository::WalArchive& archive, const repository::Lease& lease,
              postgres::SystemId system, postgres::SegmentSize size, Options options);
  ~ReceivedWal();
  ReceivedWal(const ReceivedWal&) = delete;
  ReceivedWal& operator=(const ReceivedWal&) = delete;

  /// What comes next is WAL of `timeline`. `known` are the bytes of its segment that the repository
  /// has as slices; up to `durable` (which may be behind those, on an older timeline) nothing is
  /// missing. All that came before must have been stored.
  void begin(postgres::Timeline timeline, postgres::Lsn segment_start, base::Bytes known,
             postgres::Lsn durable);
  /// False while so much waits to be stored that nothing more should be taken in.
  bool has_room() const;
  void append(base::View bytes);
  /// What has been received so far shall be stored now.
  void hurry();
  /// The same, and waits for it, until `limit` at most. True if all of it is durable.
  bool flush(std::chrono::milliseconds limit);

  postgres::Lsn received() const;
  postgres::Lsn durable() const { return {durable_.load()}; }
  /// Throws what made storing end, if it has.
  void check() const;
  /// Readable when durable() has grown, when there is room again, or when storing has ended; until
  /// calm() is called.
  int signal() const { return signal_.get(); }
  void calm() const;

 private:
  struct Complete {
    postgres::Segment segment;
    base::Bytes bytes;
    bool has_slices;
  };
  void run(const std::stop_token& stop);
  void store_segment(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  void store_slice(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  void try_to(const std::stop_token& stop, const std::function<void()>& work) const;
  bool is_pending() const;
  bool is_due() const;
  bool is_stored() const { return queue_.empty() && !busy_ && !is_pending(); }
  void advance(std::uint64_t end);
  void notify() const;

  const repository::WalArchive& archive_;
  repository::WalSlices slices_;
  const repository::Lease& lease_;
  postgres::SystemId system_;
  postgres::SegmentSize size_;
  Options options_;
  base::Fd signal_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Complete> queue_;  ///< to be stored; the first may be in the making
  std::vector<base::Bytes> spare_;
  postgres::Timeline timeline_;
  std::uint64_t start_ = 0;   ///< of the segment that is being received
  base::Bytes current_;       ///< what there is of it
  std::uint64_t sliced_ = 0;  ///< slices hold it up to here
  bool has_slices_ = false;
  std::uint64_t hurried_ = 0;  ///< up to here it should be stored now
  bool busy_ = false;
  std::chrono::steady_clock::time_point last_store_;
  std::atomic<std::uint64_t> durable_{0};
  std::exception_ptr failure_;
  std::jthread thread_;
};

}  // namespace holdfast::operations
