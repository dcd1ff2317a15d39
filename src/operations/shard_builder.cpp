#include "operations/shard_builder.h"

namespace holdfast::operations {

namespace {

/// So many runs or files make a shard: some hundred kilobytes. It may become twice as large, so
/// that one file more does not move the border of all shards behind it.
constexpr std::size_t shard_weight = 32768;
/// A new shard smaller than this takes the next one in, so that they do not become ever smaller.
constexpr std::size_t small_weight = shard_weight / 8;

std::size_t weight_of(const repository::FileEntry& entry) {
  return 1 + entry.runs.size() + entry.hashes.size() / 2;
}

}  // namespace

void ShardBuilder::add(repository::FileEntry entry, std::size_t shard, bool unchanged) {
  if (shard != group_) {
    end_group();
    group_ = shard;
  }
  if (group_holds_ && unchanged) {
    again_.push_back(std::move(entry));
    return;
  }
  give_up_group();
  append(std::move(entry));
}

void ShardBuilder::give_up_group() {
  group_holds_ = false;
  for (repository::FileEntry& each : again_) append(std::move(each));
  again_.clear();
}

void ShardBuilder::end_group() {
  if (group_ < previous_.size() && again_.size() != previous_[group_].files) group_holds_ = false;
  if (again_.empty() || (!open_.files.empty() && weight_ < small_weight)) group_holds_ = false;
  if (group_holds_) {
    write(open_.files.size());
    shards_.push_back(previous_[group_]);
    ++kept_;
    again_.clear();
  }
  give_up_group();
  group_holds_ = true;
}

void ShardBuilder::append(repository::FileEntry entry) {
  if (weight_ < shard_weight) enough_ = open_.files.size() + 1;
  weight_ += weight_of(entry);
  open_.files.push_back(std::move(entry));
  if (weight_ >= 2 * shard_weight) write(enough_);
}

void ShardBuilder::write(std::size_t count) {
  if (count == 0) return;
  std::vector<repository::FileEntry> rest;
  rest.insert(rest.end(), std::make_move_iterator(open_.files.begin() + std::ptrdiff_t(count)),
              std::make_move_iterator(open_.files.end()));
  open_.files.resize(count);
  std::uint64_t bytes = 0;
  for (const repository::FileEntry& entry : open_.files) bytes += entry.size;
  const repository::ShardId id = backups_.write_shard(open_, compressor_);
  shards_.push_back(
      {id, open_.files.front().path, open_.files.back().path, open_.files.size(), bytes});
  open_.files.clear();
  weight_ = 0;
  for (repository::FileEntry& entry : rest) append(std::move(entry));
}

void ShardBuilder::finish() {
  end_group();
  write(open_.files.size());
}

}  // namespace holdfast::operations
