#pragma once

// Several repositories: every one gets every backup and all WAL; reading takes the first that has
// what is needed.
//
// Repositories know nothing of each other. Each has its own key, its own backups (which are
// compared with its own previous ones), its own retention; so what befalls one is nothing to the
// others. A configuration that is cut down to one of them is what all other operations work with.
//
// What one of them missed while it was down it gets later: backups by the next backup, WAL from the
// others (catch_up_wal), or from its own replication slot.

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "operations/restore.h"
#include "operations/wal_fetch.h"
#include "operations/wal_push.h"

namespace holdfast::operations {

/// One configuration for each repository, in the order of the file; or for those that are named, in
/// that order. Throws Error(not_found) for a name that is not there.
std::vector<Configuration> each_repository(const Configuration& configuration,
                                           const std::vector<std::string>& names);

/// How a piece of work that is done for several repositories speaks of those where it failed.
using SayFailure = std::function<void(const std::string& repository, const base::Error& error)>;

/// `wal push` into all; one that hangs is left out. Durable in at least `[wal] copies` of them on
/// return (INV-4); where it is missing is said. A repository that lacks the segments before this
/// one gets them from the others, a bounded number each time.
PushOutcome push_wal_everywhere(const std::vector<Configuration>& repositories,
                                const std::string& cluster, const base::fs::path& path,
                                unsigned workers, const SayFailure& say);

/// `wal fetch` from the first that has the file. A complete segment counts before one that is put
/// together from slices. False only if all of them prove that there is none (INV-6).
bool fetch_wal_anywhere(const std::vector<Configuration>& repositories, const std::string& cluster,
                        const FetchRequest& request, const SayFailure& say);

/// `restore` from the first that can. If one fails on the way, the next goes on with what is there:
/// files that are right already are not written again.
RestoreOutcome restore_from_any(std::vector<Configuration> repositories, const std::string& cluster,
                                RestoreOptions options, base::Progress& progress);

/// Copies to `behind` the WAL that the others have of its systems, from the start of its own oldest
/// backup on. Returns how many files that were. What is there is not touched; what cannot be read
/// is left out.
std::size_t catch_up_wal(const Site& behind, const std::vector<const Site*>& others);
/// The same for each of them from all others.
std::size_t catch_up_everywhere(const std::vector<Configuration>& repositories,
                                const std::string& cluster, const SayFailure& say);

}  // namespace holdfast::operations
