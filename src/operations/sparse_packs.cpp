#include "operations/sparse_packs.h"

#include <algorithm>

#include "base/error.h"
#include "repository/pack.h"

namespace holdfast::operations {

namespace {

using repository::PackId;
using repository::page_bytes;

/// A pack is sparse if the pages that are left would fill less than this part of it even if they
/// could not be compressed. What compresses well is emptied later than it might be.
constexpr std::uint64_t sparse_divisor = 2;
/// Backups every few minutes leave small packs; when there are more than so many, they are put
/// together.
constexpr std::uint64_t small_pack_bytes = repository::pack_target_bytes / 8;
constexpr std::size_t small_packs_limit = 64;
/// The most that one backup stores again: 64 MiB, or a hundredth of the cluster.
constexpr std::uint64_t least_budget = (64 << 20) / page_bytes;
constexpr std::uint64_t budget_divisor = 100;

std::map<PackId, std::uint64_t> live_pages(const repository::Backups& backups,
                                           const Baseline& baseline) {
  std::map<PackId, std::uint64_t> live;
  base::Decompressor decompressor;
  for (const repository::ShardReference& shard : baseline.map.shards) {
    try {
      for (const auto& use : backups.read_shard_packs(shard.id, decompressor)) {
        live[use.pack] += use.pages;
      }
    } catch (const base::Error& error) {
      if (error.code() != base::Code::corrupt) throw;
    }
  }
  return live;
}

}  // namespace

std::set<PackId> find_sparse_packs(const repository::Backups& backups, const Baseline& baseline,
                                   const std::map<PackId, std::uint64_t>& sizes) {
  struct Candidate {
    PackId id;
    std::uint64_t pages;
  };
  std::vector<Candidate> sparse;
  std::vector<Candidate> small;
  for (const auto& [id, pages] : live_pages(backups, baseline)) {
    const auto size = sizes.find(id);
    if (size == sizes.end()) continue;
    if (pages * page_bytes < size->second / sparse_divisor) {
      sparse.push_back({id, pages});
    } else if (size->second < small_pack_bytes) {
      small.push_back({id, pages});
    }
  }
  std::ranges::sort(sparse, {}, &Candidate::pages);
  std::ranges::sort(small, {}, &Candidate::pages);
  if (small.size() > small_packs_limit) sparse.insert(sparse.end(), small.begin(), small.end());
  std::uint64_t budget =
      std::max(least_budget, baseline.backup.bytes / page_bytes / budget_divisor);
  std::set<PackId> chosen;
  for (const Candidate& each : sparse) {
    if (each.pages > budget) break;
    budget -= each.pages;
    chosen.insert(each.id);
  }
  return chosen;
}

}  // namespace holdfast::operations
