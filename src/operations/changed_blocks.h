#pragma once

// Which blocks of which relations may have changed between two moments: as told by WAL or by the
// server's WAL summaries. What is not in it has not changed; what is in it may have.
//
// It speaks of the main forks of permanent relations only. Their other forks, and all else in a
// data directory, change without WAL saying where (POSTGRES U1, U2), and are compared by content.
//
// It is told in the order of the WAL: blocks that are named before their file is cut off are gone
// with it, and those that are named behind that are there. Whoever mixes the two loses pages.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "postgres/wal_changes.h"

namespace holdfast::operations {

/// A file of a relation: its segment `number` of `blocks` blocks.
struct RelationSegment {
  postgres::RelationId relation;
  std::uint32_t number = 0;
  std::uint32_t blocks = 0;
};

class ChangedBlocks {
 public:
  /// One block was changed.
  void add(const postgres::RelationId& relation, std::uint32_t block);
  /// Every block from `block` on may have changed: it was cut off there, or made anew (0). Blocks
  /// that were named there before are no longer written ones.
  void add_from(const postgres::RelationId& relation, std::uint32_t block);
  /// All relations of a database in a tablespace may have changed.
  void add_database(std::uint32_t tablespace, std::uint32_t database);
  /// Takes over what another one knows of the WAL behind it.
  void merge(ChangedBlocks&& other);

  /// The pages of a file that may have changed, in rising order, as numbers in the file; nullopt
  /// means: all of them.
  std::optional<std::vector<std::uint32_t>> pages_of(const RelationSegment& segment) const;

  /// The pages of a file that were named and not cut off since, in rising order: each must be there
  /// if the file is that long. Not those that only may have changed because it was cut off.
  std::vector<std::uint32_t> written_pages_of(const RelationSegment& segment) const;

  /// The lowest that add_from() was told of a relation; nullopt: nothing.
  std::optional<std::uint32_t> limit_of(const postgres::RelationId& relation) const;

  /// Bytes of memory, about.
  std::size_t footprint() const { return footprint_; }

 private:
  /// 65536 consecutive blocks: few of them by number, many as a bit each.
  struct Chunk {
    std::vector<std::uint16_t> few;
    std::vector<std::uint64_t> many;
  };
  struct Relation {
    std::map<std::uint32_t, Chunk> chunks;
    std::optional<std::uint32_t> from;  ///< all from here on
  };
  struct Hash {
    std::size_t operator()(const postgres::RelationId& id) const;
  };
  void set(Chunk& chunk, std::uint16_t block);
  void forget_from(Relation& relation, std::uint32_t block);
  static void collect(const Relation& relation, std::uint64_t begin, std::uint64_t end,
                      std::vector<std::uint32_t>& pages);

  std::unordered_map<postgres::RelationId, Relation, Hash> relations_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> databases_;
  std::size_t footprint_ = 0;
};

}  // namespace holdfast::operations
