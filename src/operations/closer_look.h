#pragma once

// A closer look at a cluster that was brought back: is it what it should be, and how much is lost?
//
// A drill and a recovery ask the same. What the costly checks look at is sampled, by time.

#include <optional>
#include <string>
#include <vector>

#include "operations/witness_check.h"

namespace holdfast::operations {

/// What backups say of the cluster: its own, and the one before.
struct Witnesses {
  std::optional<Witness> own;
  std::optional<Witness> previous;
  std::string previous_name;

  /// The role that made the cluster; "postgres" if nobody knows.
  std::string superuser() const;
};
Witnesses read_witnesses(const Site& site, const RestorePlan& plan,
                         const repository::BackupMap& map);

struct LookRequest {
  Budget tables;
  Budget checksums;
  Budget structures;
  unsigned workers = 1;
};
/// Everything at all.
LookRequest look_at_everything(unsigned workers);
/// Some seconds, whatever the size.
LookRequest look_at_samples(unsigned workers);

/// All checks, in their order: witnesses first, as reading changes pages.
std::vector<Checked> look_closely(const Site& site, ScratchCluster& cluster,
                                  const Witnesses& witnesses, const LookRequest& request,
                                  base::Progress& progress);

/// How much of the work that was done is not there.
struct Loss {
  std::optional<base::Microseconds> time;  ///< nullopt: not measured
  std::string how;
  std::optional<Checked> check;  ///< of the heartbeat
};
/// Between the moment that was meant and the last trace of life in what came back. `lost`: when the
/// old cluster was lost, which is what "latest" means.
Loss measure_loss(const Configuration& configuration, const RecoveryTarget& target,
                  base::Timestamp lost, ScratchCluster& cluster);

}  // namespace holdfast::operations
