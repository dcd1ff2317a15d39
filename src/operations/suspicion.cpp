#include "operations/suspicion.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::operations {

namespace {

/// A server does not send inode numbers; whoever reads a data directory notes them.
bool came_from_a_directory(const repository::Backups& backups, const repository::BackupId& id) {
  base::Decompressor decompressor;
  for (const repository::ShardReference& shard : backups.read_map(id).shards) {
    const auto files = backups.read_shard(shard.id, decompressor).files;
    if (!files.empty()) return files.front().inode != 0;
  }
  return false;
}

}  // namespace

std::string find_suspicion(const repository::Backups& backups, const BackupInfo& backup) {
  if (backup.changes_checked || backup.compared != "summaries") return {};
  try {
    if (came_from_a_directory(backups, backup.id)) return {};
  } catch (const base::Error& error) {
    if (error.code() == base::Code::interrupted) throw;
  }
  return "PostgreSQL chose which pages to send, and that was not checked: committed rows may be "
         "missing in files that were cut off before";
}

}  // namespace holdfast::operations
