#pragma once

// A cluster that is brought back somewhere, looked at, and thrown away: for drills and for taking
// something out of a backup.
//
// Everything of it is in one directory, the place: the data directory, its tablespaces, the
// server's socket and log. Whoever makes it decides what stays. A recovery looks in the same way at
// a cluster that stays, before anybody else can reach it.

#include <memory>
#include <optional>

#include "operations/restore.h"
#include "postgres/scratch_server.h"
#include "repository/page_map.h"

namespace holdfast::operations {

/// A directory for one scratch cluster below `parent`. While its maker lives it is locked; those
/// whose maker died are removed by the next one.
class ScratchPlace {
 public:
  /// As root it belongs to the user that servers run as.
  ScratchPlace(const base::fs::path& parent, const std::string& name);
  const base::fs::path& path() const { return path_; }
  /// Places that a killed process left, and that were removed.
  std::size_t swept() const { return swept_; }
  /// Removes what is in it, but for files of these names; and itself, if nothing is left.
  void clear(const std::vector<std::string>& spared = {});

 private:
  void sweep(const base::fs::path& parent);
  base::fs::path path_;
  base::Fd lock_;
  std::size_t swept_ = 0;
};

class ScratchCluster {
 public:
  ScratchCluster(const Site& site, RestorePlan plan, base::fs::path place);
  /// On files that are in `data_directory` already, and that stay: what its server writes is as
  /// durable as a cluster's own. `place` gets the log.
  static std::unique_ptr<ScratchCluster> on_restored(const Site& site, RestorePlan plan,
                                                     base::fs::path data_directory,
                                                     base::fs::path place);
  ~ScratchCluster();
  ScratchCluster(const ScratchCluster&) = delete;
  ScratchCluster& operator=(const ScratchCluster&) = delete;

  const RestorePlan& plan() const { return plan_; }
  const repository::BackupMap& map() const { return map_; }
  const base::fs::path& data_directory() const { return data_directory_; }
  base::fs::path log() const { return place_ / "server.log"; }
  postgres::ScratchServer& server() { return *server_; }
  /// What the kernel does not hold its server back from.
  std::vector<std::string> gaps() const;

  /// The files, tablespaces inside of the place. The one function that knows how they come: mounted
  /// where that can be, so that nothing is brought that nobody reads; else written, and then
  /// Error(no_space) is thrown before anything is if they would not fit. `to_stay`: they are
  /// written in any case, as somebody wants them afterwards.
  void bring_back(const RestoreRequest& request, unsigned workers, base::Progress& progress,
                  bool to_stay = false);
  /// The server on them, recovered to the target. `superuser`: a role of the cluster.
  void start(const std::string& superuser, std::chrono::seconds limit);
  void stop();
  /// It is no copy to be thrown away.
  bool stays() const { return stays_; }
  /// How the files came.
  bool is_mounted() const { return mounted_; }

 private:
  void check_space() const;
  base::Cage::Connections needed_connections() const;
  const Site& site_;
  RestorePlan plan_;
  base::fs::path place_;
  base::fs::path data_directory_;
  bool stays_ = false;
  repository::BackupMap map_;
  std::optional<postgres::ScratchServer> server_;
  bool mounted_ = false;
};

}  // namespace holdfast::operations
