#pragma once

// The steps of a recovery that bring the cluster back: choose, restore, replay, prove, open, back
// up.
//
// Between replay and open the server runs closed: it listens on a socket that nobody else can
// reach, and ends with us. So nothing is served that was not proven, and no client from before
// writes to it. What it writes is durable all the same.

#include "operations/closer_look.h"
#include "operations/recovery_context.h"
#include "operations/recovery_obstacles.h"

namespace holdfast::operations {

struct Prospect {
  RestorePlan plan;
  std::vector<Obstacle> obstacles;
};

/// Where a tablespace of the backup will be.
base::fs::path restored_tablespace(const Recovery& recovery,
                                   const repository::LinkedDirectory& link);

/// Segments in the old cluster's pg_wal that replay wants, and that the archive lacks.
std::vector<base::fs::path> unarchived_wal(const Site& site, const RestorePlan& plan,
                                           const base::fs::path& old);

class RestoredCluster {
 public:
  explicit RestoredCluster(RecoveryContext& context) : context_(context) {}

  /// Before anything is touched: can it be done at all?
  Prospect prospect() const;

  StepResult choose();
  /// What the archive lacks of the old cluster's WAL, and what lies in its directory, is taken from
  /// there if everything is wanted: then nothing is lost that its disk still has.
  StepResult restore();
  StepResult replay();
  StepResult prove();
  /// Sets up archiving, starts it as the user's servers are started, and looks that it is the one.
  StepResult open();
  StepResult back_up();

  /// Where the restored cluster is reached once it is open.
  static std::string connection(const RecoveryContext& context);

 private:
  template <typename Work>
  auto with_site(Work work);
  void run_closed();
  void close();
  std::string rescue_wal(const Site& site, const RestorePlan& plan);
  void set_up_archiving();
  std::vector<Configuration> following_configurations() const;

  RecoveryContext& context_;
  std::optional<Site> site_;
  std::unique_ptr<ScratchCluster> closed_;
  Witnesses witnesses_;
  bool promoted_before_ = false;  ///< when it was started last, it had left the old timeline
};

}  // namespace holdfast::operations
