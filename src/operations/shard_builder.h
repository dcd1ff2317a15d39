#pragma once

// Files in, map shards out: those of the previous backup that still hold, and new ones for the
// rest.

#include <vector>

#include "repository/backups.h"

namespace holdfast::operations {

class ShardBuilder {
 public:
  /// `previous`: the shards of the backup that this one is compared with.
  ShardBuilder(const repository::Backups& backups, std::vector<repository::ShardReference> previous)
      : backups_(backups),
        previous_(std::move(previous)),
        compressor_(base::Compressor::Effort::dense) {}

  /// Takes files in path order. `shard` is the previous shard that the path falls into; `unchanged`
  /// says that the file has there exactly this entry.
  void add(repository::FileEntry entry, std::size_t shard, bool unchanged);
  void finish();

  const std::vector<repository::ShardReference>& shards() const { return shards_; }
  /// How many of them are previous ones.
  std::size_t kept() const { return kept_; }

 private:
  void end_group();
  void give_up_group();
  void append(repository::FileEntry entry);
  void write(std::size_t count);

  const repository::Backups& backups_;
  std::vector<repository::ShardReference> previous_;
  base::Compressor compressor_;
  std::vector<repository::ShardReference> shards_;
  std::size_t kept_ = 0;

  std::size_t group_ = 0;                     ///< the previous shard that is being met again,
  bool group_holds_ = true;                   ///< as it was, so far:
  std::vector<repository::FileEntry> again_;  ///< these of its files

  repository::Shard open_;  ///< what will be the next new shard
  std::size_t weight_ = 0;
  std::size_t enough_ = 0;  ///< so many of its files make a whole one
};

}  // namespace holdfast::operations
