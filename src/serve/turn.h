#pragma once

// Whose turn it is: daemons that share a repository do each scheduled run once.
//
// Who begins a run holds the lease "serve-JOB" on the cluster, and leaves the run's moment in
// runs/JOB/MOMENT when it is over. A daemon that dies leaves no such object, so that another one
// does the run. What is left there is a note among daemons and no more: a run that is done twice is
// two backups.

#include <memory>
#include <optional>
#include <string>

#include "base/time.h"
#include "repository/lease.h"

namespace holdfast::serve {

class Turn {
 public:
  /// nullptr if that run, or a later one, has been done; then `done` says which. Throws Error(busy)
  /// while somebody else is at it.
  static std::unique_ptr<Turn> take(const repository::Repository& repository,
                                    const repository::ClusterPlace& place, const std::string& job,
                                    base::Timestamp slot, base::Timestamp& done);

  /// The run is over, and is not to be done again. Throws Error(busy) if the lease was lost.
  void finish();

 private:
  Turn(const repository::Repository& repository, const repository::ClusterPlace& place,
       const std::string& job, base::Timestamp slot);
  std::optional<base::Timestamp> newest_done() const;

  const repository::Repository& repository_;
  std::string directory_;
  base::Timestamp slot_;
  repository::Lease lease_;
};

}  // namespace holdfast::serve
