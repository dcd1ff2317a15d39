#include "mount/image.h"

#include <algorithm>

namespace holdfast::mount {

namespace {

/// A shard takes a few megabytes at most.
constexpr std::size_t shards_kept = 24;

/// `path` is directly in `directory` ("" or ending with "/").
bool is_directly_in(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) && path.find('/', directory.size()) == std::string_view::npos;
}

/// All files from `first` to `last` are below one directory that is itself in `directory`.
bool lies_deeper(const repository::ShardReference& shard, std::string_view directory) {
  const std::string_view first = shard.first_path;
  if (!first.starts_with(directory)) return false;
  const std::size_t slash = first.find('/', directory.size());
  return slash != std::string_view::npos &&
         std::string_view(shard.last_path).starts_with(first.substr(0, slash + 1));
}

}  // namespace

Image::Image(const repository::Backups& backups, const repository::BackupId& id)
    : backups_(backups), map_(backups.read_map(id)) {}

std::shared_ptr<const repository::Shard> Image::shard(std::size_t index) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(kept_, index, &Kept::index);
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return found->shard;
  }
  auto read = std::make_shared<const repository::Shard>(
      backups_.read_shard(map_.shards[index].id, decompressor_));
  kept_.push_front({index, read});
  if (kept_.size() > shards_kept) kept_.pop_back();
  return read;
}

std::shared_ptr<const repository::FileEntry> Image::find(const std::string& path) const {
  // The last shard that does not begin behind the path.
  const auto behind = std::partition_point(
      map_.shards.begin(), map_.shards.end(), [&](const repository::ShardReference& each) {
        return !repository::comes_before(path, each.first_path);
      });
  if (behind == map_.shards.begin()) return nullptr;
  const auto index = static_cast<std::size_t>(behind - map_.shards.begin()) - 1;
  if (repository::comes_before(map_.shards[index].last_path, path)) return nullptr;
  const auto in = shard(index);
  const auto at = std::partition_point(
      in->files.begin(), in->files.end(),
      [&](const repository::FileEntry& each) { return repository::comes_before(each.path, path); });
  if (at == in->files.end() || at->path != path) return nullptr;
  return {in, &*at};
}

std::vector<std::shared_ptr<const repository::FileEntry>> Image::files_in(
    const std::string& directory) const {
  const std::string prefix = directory.empty() ? "" : directory + "/";
  std::vector<std::shared_ptr<const repository::FileEntry>> found;
  for (std::size_t i = 0; i < map_.shards.size(); ++i) {
    const repository::ShardReference& reference = map_.shards[i];
    // Everything below a directory stands together, directly behind what comes before its name.
    if (!directory.empty() && repository::comes_before(reference.last_path, prefix)) continue;
    if (!directory.empty() && !reference.first_path.starts_with(prefix) &&
        repository::comes_before(prefix, reference.first_path)) {
      break;
    }
    if (lies_deeper(reference, prefix)) continue;
    const auto in = shard(i);
    for (const repository::FileEntry& file : in->files) {
      if (is_directly_in(file.path, prefix)) found.emplace_back(in, &file);
    }
  }
  return found;
}

}  // namespace holdfast::mount
