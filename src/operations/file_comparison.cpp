#include "operations/file_comparison.h"

#include <algorithm>

#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using repository::FileEntry;
using repository::PackId;
using repository::page_bytes;
using repository::Run;

/// Is it the very file of before, not another one at its path (U5)? Without a birth time an inode
/// could have been used again.
bool is_same_file(const FileEntry& entry, const FileEntry& previous) {
  return entry.birth != 0 && entry.inode == previous.inode && entry.birth == previous.birth;
}

}  // namespace

const std::vector<repository::ShardReference>& previous_shards(const ComparisonBase& base) {
  static const std::vector<repository::ShardReference> none;
  return base.baseline != nullptr ? base.baseline->map.shards : none;
}

std::string previous_id(const ComparisonBase& base) {
  return base.baseline != nullptr ? base.baseline->backup.id.text : std::string();
}

FileComparison::FileComparison(const ComparisonBase& base, std::uint32_t segment_blocks,
                               const FileEntry& entry, std::optional<FileEntry> previous)
    : previous_(std::move(previous)) {
  const auto relation = postgres::relation_file(entry.path);
  is_main_fork_ = relation && relation->fork == postgres::RelationFile::Fork::main;
  if (!previous_) return;
  same_size_ = previous_->size == entry.size;
  method_ = Method::content;
  if (!is_main_fork_ || !base.baseline->distrust.empty() || !is_same_file(entry, *previous_) ||
      entry.size % page_bytes != 0 || previous_->size % page_bytes != 0) {
    return;
  }
  if (base.changed != nullptr) {
    list_pages(base, segment_blocks, entry);
  } else if (base.trust_stamps) {
    method_ = Method::stamp;
  }
}

FileComparison FileComparison::of_changes(FileEntry previous) {
  FileComparison comparison;
  comparison.previous_ = std::move(previous);
  comparison.method_ = Method::list;
  comparison.is_main_fork_ = true;
  return comparison;
}

void FileComparison::list_pages(const ComparisonBase& base, std::uint32_t segment_blocks,
                                const FileEntry& entry) {
  const auto relation = postgres::relation_file(entry.path).value();
  auto listed = base.changed->pages_of({{relation.tablespace, relation.database, relation.relation},
                                        relation.segment,
                                        segment_blocks});
  if (!listed) return;  // all of it may have changed: its content tells
  method_ = Method::list;
  listed_ = *std::move(listed);
  const auto pages = static_cast<std::uint32_t>(repository::page_count(entry.size));
  std::uint32_t number = 0;
  if (base.emptied != nullptr && !base.emptied->empty()) {
    for (const Run& run : previous_->runs) {
      const bool moves = run.pack && base.emptied->contains(*run.pack);
      for (std::uint64_t i = 0; moves && i < run.pages; ++i) {
        listed_.push_back(number + static_cast<std::uint32_t>(i));
      }
      number += static_cast<std::uint32_t>(run.pages);
    }
  }
  const auto before = static_cast<std::uint32_t>(repository::page_count(previous_->size));
  for (std::uint32_t page = before; page < pages; ++page) listed_.push_back(page);
  std::ranges::sort(listed_);
  listed_.erase(std::unique(listed_.begin(), listed_.end()), listed_.end());
  listed_.erase(std::ranges::lower_bound(listed_, pages), listed_.end());
}

bool FileComparison::is_unchanged() const {
  return method_ == Method::list && listed_.empty() && same_size_;
}

std::vector<FileComparison::Range> FileComparison::to_read(std::uint64_t first,
                                                           std::uint64_t end) const {
  if (method_ != Method::list) return {{first, end}};
  std::vector<Range> ranges;
  for (auto page = std::ranges::lower_bound(listed_, first); page != listed_.end() && *page < end;
       ++page) {
    if (!ranges.empty() && ranges.back().end == *page) {
      ++ranges.back().end;
    } else {
      ranges.push_back({*page, *page + std::uint64_t{1}});
    }
  }
  return ranges;
}

PageJudge::PageJudge(const FileComparison& file, const ComparisonBase& base, PageHashes& hashes,
                     std::uint64_t first)
    : file_(file), base_(base), hashes_(hashes) {
  advance(first);
}

const Run* PageJudge::advance(std::uint64_t number) {
  const FileEntry* previous = file_.previous();
  if (previous == nullptr) return nullptr;
  const std::vector<Run>& runs = previous->runs;
  while (run_ < runs.size() && run_first_ + runs[run_].pages <= number) {
    run_first_ += runs[run_++].pages;
  }
  return run_ < runs.size() ? &runs[run_] : nullptr;
}

bool PageJudge::has_hash(std::uint64_t number, const Run& run, std::uint64_t hash) {
  const FileEntry& previous = *file_.previous();
  if (!previous.hashes.empty()) return previous.hashes[number] == hash;
  if (hashed_pack_ != run.pack) {
    pack_hashes_ = hashes_.of(*run.pack);
    hashed_pack_ = run.pack;
  }
  const std::uint64_t slot = run.slot.value + (number - run_first_);
  return slot < pack_hashes_->size() && (*pack_hashes_)[slot] == hash;
}

std::optional<Run> PageJudge::same(std::uint64_t number, base::View page, std::uint64_t hash) {
  const Run* run = advance(number);
  if (run == nullptr || !run->pack) return std::nullopt;
  if (base_.emptied != nullptr && base_.emptied->contains(*run->pack)) return std::nullopt;
  bool is_same = false;
  switch (file_.method()) {
    case FileComparison::Method::nothing:
    case FileComparison::Method::list:
      break;
    case FileComparison::Method::content:
      is_same = has_hash(number, *run, hash);
      break;
    case FileComparison::Method::stamp: {
      // What was changed before the last backup began was on disk when it was read. A page without
      // an LSN was never logged: it is no page to trust (U8).
      const postgres::Lsn lsn = postgres::page_lsn(page);
      is_same = page.size() == page_bytes && lsn && lsn < base_.baseline->backup.start;
      break;
    }
  }
  if (!is_same) return std::nullopt;
  return Run{1, run->pack, {run->slot.value + static_cast<std::uint32_t>(number - run_first_)}};
}

}  // namespace holdfast::operations
