#pragma once

// One at a time: leases on a cluster's work.
//
// A lease is a row of objects, none of which ever changes: leases/WORK/NUMBER takes it (created
// only if absent, so one of several racers gets the number), NUMBER-renewed-K extends it,
// NUMBER-released ends it. The highest number is the one that counts: it is the fencing number.
// Numbers are not used again.
//
// A holder that does not renew in time has lost the lease, by its own judgement, whatever the store
// says (TRAPS LC4). A successor waits for one more term after that, for clocks that differ, unless
// the holder is known to be dead: same boot of the same kernel, same numbering of processes, no
// such process.

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "repository/repository.h"

namespace holdfast::repository {

class Lease {
 public:
  /// Takes the lease on `work` ("backup") or throws Error(busy) that names the holder. Renews it in
  /// the background until it is destroyed, which releases it. `doing` is what others are told that
  /// it is held for; empty: `work`.
  Lease(const Repository& repository, const ClusterPlace& place, std::string work,
        std::chrono::seconds term = std::chrono::seconds(60), std::string doing = {});
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// Throws Error(busy) if the lease was lost: the work must not be committed then (TRAPS LC3).
  void check() const;
  std::uint64_t number() const { return number_; }

 private:
  void acquire();
  void renew_until_stopped(const std::stop_token& stop);
  void renew();
  bool is_overtaken(const std::vector<std::string>& names) const;
  bool is_over() const;
  std::string name(std::string_view suffix = "") const;

  const Repository& repository_;
  std::string directory_;
  std::string work_;
  std::string doing_;
  std::chrono::seconds term_;
  std::uint64_t number_ = 0;
  std::uint64_t renewals_ = 0;
  std::atomic<base::Timestamp::rep> expires_{0};  ///< as others read it
  std::atomic<std::int64_t> deadline_{0};         ///< the same by a clock that nobody sets
  std::atomic<bool> lost_{false};
  std::jthread renewer_;
};

/// When the lease on `work` was taken, by its holder's clock; nullopt if nobody has it. By the same
/// judgement as that of who would take it, but nothing is taken.
std::optional<base::Timestamp> held_since(const Repository& repository, const ClusterPlace& place,
                                          const std::string& work,
                                          std::chrono::seconds term = std::chrono::seconds(60));

}  // namespace holdfast::repository
