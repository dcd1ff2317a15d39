#pragma once

// Packs that have become nearly empty: few of their pages belong to the newest backup any more.
//
// A backup stores those pages again, a bounded number each time, so that expire can remove the
// packs when the older backups go.

#include <map>
#include <set>

#include "operations/baseline.h"

namespace holdfast::operations {

/// Chooses from the packs of the baseline. `sizes` are the stored bytes of each pack. What cannot
/// be read is left out.
std::set<repository::PackId> find_sparse_packs(
    const repository::Backups& backups, const Baseline& baseline,
    const std::map<repository::PackId, std::uint64_t>& sizes);

}  // namespace holdfast::operations
