#pragma once

// The agentless way into a backup: files by BASE_BACKUP, WAL by replication, nothing from a data
// directory. What it yields is what an agent's copy yields, and is committed by the same code.

#include <memory>
#include <optional>

#include "operations/copy_stream.h"
#include "operations/stream_wal.h"

namespace holdfast::operations {

class StreamBackup {
 public:
  /// Connects; from now on the server keeps its WAL until this object goes. Throws
  /// Error(unreachable) with the way out if the server lets nobody replicate.
  StreamBackup(const std::string& connection, postgres::SystemId system);

  /// Begins a base backup, with a fast checkpoint; gives up one that was begun before. With
  /// `earlier` only what has changed since that comes of its files: see BaseBackup.
  postgres::BackupBegin begin(const std::string& label,
                              const postgres::BaseBackup::Manifest& earlier = {});
  /// Receives all of it: see copy_stream.
  CopiedStream copy(const repository::Repository& repository, const repository::Backups& backups,
                    const CopyStreamRequest& request, base::Progress& progress);
  BackupWal& wal() { return wal_; }

 private:
  void connect();
  std::string connection_string_;
  postgres::SystemId system_;
  BackupWal wal_;
  std::unique_ptr<postgres::Replication> connection_;
  std::optional<postgres::BaseBackup> stream_;
};

}  // namespace holdfast::operations
