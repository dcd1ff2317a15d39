#pragma once

// The steps of a recovery that bring the cluster back: choose, restore, replay, prove, open, back
// up.
//
// Between replay and open the server runs closed: it listens on a socket that nobody else can
// reach, and ends with us. So nothing is served that was not proven, and no client from before
// writes to it. What it writes is durable all the same.

#include "operations/closer_look.h"
#include "operations/recovery_context.h"

namespace holdfast::operations {

class RestoredCluster {
 public:
  explicit RestoredCluster(RecoveryContext& context) : context_(context) {}

  /// Before anything is touched: can it be done at all?
  RestorePlan plan() const;

  StepResult choose();
  /// What the archive lacks of the old cluster's WAL, and what lies in its directory, is taken from
  /// there if everything is wanted: then nothing is lost that its disk still has.
  StepResult restore();
  StepResult replay();
  StepResult prove();
  /// Sets up archiving, starts it as the user's servers are started, and looks that it is the one.
  StepResult open();
  StepResult back_up();

  /// Starts whatever is in a directory, by the user's command or pg_ctl, unless it runs.
  static void start_server(const RecoveryContext& context, const base::fs::path& directory,
                           base::Microseconds limit);
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
};

}  // namespace holdfast::operations
