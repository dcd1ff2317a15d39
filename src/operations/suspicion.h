#pragma once

// Backups that are whole, byte for byte, and may lack committed rows all the same.
//
// Up to now there is one such kind: those for which a server of version 17 or 18 chose what to send
// (compared by "summaries", through a replication connection), before it was checked whether it
// sent all that it had to. Their backup.json has no "changes_checked". Such a backup can be
// restored, and most are right; nothing in it tells. A new one is compared with it by content.

#include <string>

#include "operations/catalog.h"

namespace holdfast::operations {

/// Why the backup may lack rows, for people; empty: nothing speaks against it. Reads of its map
/// what is needed to tell. If that cannot be read, it is suspect.
std::string find_suspicion(const repository::Backups& backups, const BackupInfo& backup);

}  // namespace holdfast::operations
