#include "operations/sent_blocks.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::operations {

std::optional<std::uint32_t> missing_page(const ChangedBlocks& changes,
                                          const RelationSegment& segment,
                                          const postgres::IncrementalHeader& sent) {
  if (!changes.pages_of(segment)) return 0;
  for (const std::uint32_t page : changes.written_pages_of(segment)) {
    // What was cut off after the backup's start is not there, and replay knows it.
    if (page >= sent.length()) break;
    if (!std::ranges::binary_search(sent.blocks, page)) return page;
  }
  return std::nullopt;
}

void SentBlocks::add(const RelationSegment& segment, const postgres::IncrementalHeader& sent) {
  files_.push_back({segment, sent.kept_length, static_cast<std::uint32_t>(sent.blocks.size())});
  blocks_.insert(blocks_.end(), sent.blocks.begin(), sent.blocks.end());
}

std::string SentBlocks::find_missing(const ChangedBlocks& changes) const {
  auto next = blocks_.begin();
  for (const File& file : files_) {
    const auto first = next;
    next += file.blocks;
    const auto page =
        missing_page(changes, file.segment, {file.kept_length, std::vector(first, next)});
    if (!page) continue;
    const postgres::RelationId& relation = file.segment.relation;
    return fmt::format("page {} of file {} of relation {} in database {}", *page,
                       file.segment.number, relation.relation, relation.database);
  }
  return {};
}

}  // namespace holdfast::operations
