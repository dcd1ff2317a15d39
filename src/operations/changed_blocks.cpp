#include "operations/changed_blocks.h"

#include <algorithm>
#include <bit>

namespace holdfast::operations {

namespace {

constexpr std::uint32_t chunk_blocks = 65536;
/// As numbers they take two bytes each, as bits 8 KiB altogether.
constexpr std::size_t few_limit = 4096;
constexpr std::size_t relation_footprint = 160;
constexpr std::size_t chunk_footprint = 128;

}  // namespace

std::size_t ChangedBlocks::Hash::operator()(const postgres::RelationId& id) const {
  constexpr std::uint64_t odd = 0x9E3779B97F4A7C15;
  return ((id.tablespace * odd + id.database) * odd + id.relation) * odd;
}

void ChangedBlocks::set(Chunk& chunk, std::uint16_t block) {
  if (!chunk.many.empty()) {
    chunk.many[block / 64] |= std::uint64_t{1} << (block % 64);
    return;
  }
  if (!chunk.few.empty() && chunk.few.back() == block) return;  // records come in bursts
  chunk.few.push_back(block);
  footprint_ += sizeof(block);
  if (chunk.few.size() < few_limit) return;
  std::ranges::sort(chunk.few);
  chunk.few.erase(std::unique(chunk.few.begin(), chunk.few.end()), chunk.few.end());
  if (chunk.few.size() < few_limit / 2) return;
  chunk.many.resize(chunk_blocks / 64);
  for (const std::uint16_t each : chunk.few) {
    chunk.many[each / 64] |= std::uint64_t{1} << (each % 64);
  }
  chunk.few = {};
}

void ChangedBlocks::add(const postgres::RelationId& id, std::uint32_t block) {
  const auto [relation, is_new] = relations_.try_emplace(id);
  if (is_new) footprint_ += relation_footprint;
  const auto [chunk, is_new_chunk] = relation->second.chunks.try_emplace(block / chunk_blocks);
  if (is_new_chunk) footprint_ += chunk_footprint;
  set(chunk->second, static_cast<std::uint16_t>(block % chunk_blocks));
}

void ChangedBlocks::add_from(const postgres::RelationId& id, std::uint32_t block) {
  const auto [relation, is_new] = relations_.try_emplace(id);
  if (is_new) footprint_ += relation_footprint;
  auto& from = relation->second.from;
  from = std::min(from.value_or(block), block);
  forget_from(relation->second, block);
}

void ChangedBlocks::forget_from(Relation& relation, std::uint32_t block) {
  auto& chunks = relation.chunks;
  auto chunk = chunks.lower_bound(block / chunk_blocks);
  const std::uint32_t within = block % chunk_blocks;
  if (within != 0 && chunk != chunks.end() && chunk->first == block / chunk_blocks) {
    std::erase_if(chunk->second.few, [&](std::uint16_t each) { return each >= within; });
    auto& many = chunk->second.many;
    if (!many.empty()) {
      many[within / 64] &= (std::uint64_t{1} << (within % 64)) - 1;
      std::fill(many.begin() + within / 64 + 1, many.end(), 0);
    }
    ++chunk;
  }
  chunks.erase(chunk, chunks.end());
}

void ChangedBlocks::add_database(std::uint32_t tablespace, std::uint32_t database) {
  databases_.insert({tablespace, database});
}

void ChangedBlocks::merge(ChangedBlocks&& other) {
  for (auto& [id, theirs] : other.relations_) {
    if (theirs.from) add_from(id, *theirs.from);
    for (auto& [number, chunk] : theirs.chunks) {
      const std::uint32_t first = number * chunk_blocks;
      for (const std::uint16_t block : chunk.few) add(id, first + block);
      for (std::uint32_t word = 0; word < chunk.many.size(); ++word) {
        for (std::uint64_t bits = chunk.many[word]; bits != 0; bits &= bits - 1) {
          add(id, first + word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits)));
        }
      }
    }
  }
  databases_.merge(other.databases_);
  other = ChangedBlocks();
}

/// Blocks from `begin` up to `end`, as pages of the file that begins there. In no order, and some
/// of them twice.
void ChangedBlocks::collect(const Relation& relation, std::uint64_t begin, std::uint64_t end,
                            std::vector<std::uint32_t>& pages) {
  const auto note = [&](std::uint64_t block) {
    if (block >= begin && block < end) pages.push_back(static_cast<std::uint32_t>(block - begin));
  };
  for (auto chunk = relation.chunks.lower_bound(static_cast<std::uint32_t>(begin / chunk_blocks));
       chunk != relation.chunks.end() && std::uint64_t{chunk->first} * chunk_blocks < end;
       ++chunk) {
    const std::uint64_t first = std::uint64_t{chunk->first} * chunk_blocks;
    for (const std::uint16_t block : chunk->second.few) note(first + block);
    const auto& many = chunk->second.many;
    for (std::size_t word = 0; word < many.size(); ++word) {
      for (std::uint64_t bits = many[word]; bits != 0; bits &= bits - 1) {
        note(first + word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
      }
    }
  }
}

std::optional<std::vector<std::uint32_t>> ChangedBlocks::pages_of(
    const RelationSegment& segment) const {
  if (databases_.contains({segment.relation.tablespace, segment.relation.database})) {
    return std::nullopt;
  }
  std::vector<std::uint32_t> pages;
  const auto found = relations_.find(segment.relation);
  if (found == relations_.end()) return pages;
  const Relation& relation = found->second;
  const std::uint64_t begin = std::uint64_t{segment.number} * segment.blocks;
  const std::uint64_t end = begin + segment.blocks;
  if (relation.from && *relation.from <= begin) return std::nullopt;
  const std::uint64_t limit = relation.from ? std::min<std::uint64_t>(*relation.from, end) : end;
  collect(relation, begin, limit, pages);
  for (std::uint64_t block = limit; block < end; ++block) {
    pages.push_back(static_cast<std::uint32_t>(block - begin));
  }
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

std::vector<std::uint32_t> ChangedBlocks::written_pages_of(const RelationSegment& segment) const {
  std::vector<std::uint32_t> pages;
  const auto found = relations_.find(segment.relation);
  if (found == relations_.end()) return pages;
  const std::uint64_t begin = std::uint64_t{segment.number} * segment.blocks;
  collect(found->second, begin, begin + segment.blocks, pages);
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

std::optional<std::uint32_t> ChangedBlocks::limit_of(const postgres::RelationId& relation) const {
  const auto found = relations_.find(relation);
  return found == relations_.end() ? std::nullopt : found->second.from;
}

}  // namespace holdfast::operations
