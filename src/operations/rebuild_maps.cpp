#include <algorithm>
#include <map>

#include "base/error.h"
#include "operations/verify.h"
#include "repository/pack.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using repository::FileEntry;
using repository::PackId;
using repository::Run;

/// What the packs say of one file, as it was in one backup.
struct FoundFile {
  repository::PackedFile file;
  FileEntry entry;  ///< its runs, as far as they are known
};
using FoundFiles = std::map<std::string, FoundFile>;

/// Puts `run` where page `first` is, over whatever is there.
void replace_pages(std::vector<Run>& runs, std::uint64_t first, const Run& run) {
  std::uint64_t pages = 0;
  for (const Run& each : runs) pages += each.pages;
  std::vector<Run> changed = repository::part_of(runs, 0, std::min(first, pages));
  if (first > pages) repository::append_run(changed, {first - pages, {}, {}});
  repository::append_run(changed, run);
  const std::uint64_t behind = first + run.pages;
  if (behind < pages) {
    for (const Run& each : repository::part_of(runs, behind, pages - behind)) {
      repository::append_run(changed, each);
    }
  }
  runs = std::move(changed);
}

void add_description(const repository::PackDescription& description, const PackId& id,
                     FoundFiles& files) {
  std::uint32_t slot = 0;
  for (const repository::Extent& extent : description.extents) {
    const repository::PackedFile& file = description.files[extent.file];
    FoundFile& found = files[file.path];
    found.file = file;
    replace_pages(found.entry.runs, extent.first_page, {extent.pages, id, {slot}});
    slot += extent.pages;
  }
  for (const repository::OtherFile& other : description.others) {
    FoundFile& found = files[other.file.path];
    found.file = other.file;
    found.entry.runs = other.runs;
  }
}

PackId pack_of(const store::ObjectInfo& object) {
  return {repository::parse_object_id(object.name.substr(object.name.rfind('/') + 1))};
}

class Descriptions {
 public:
  Descriptions(const Site& site, std::string directory)
      : site_(site), directory_(std::move(directory)) {
    for (const auto& object : site.repository.store().list(directory_ + "/packs")) {
      const PackId id = pack_of(object);
      const auto description = read(id);
      Written& written = written_[description.backup];
      written.previous = description.previous;
      written.packs.push_back(id);
    }
  }

  /// Everything that was stored on the way to a backup: first what its oldest predecessor stored,
  /// last what it stored itself.
  FoundFiles files_of(const repository::BackupId& backup) {
    std::vector<const Written*> way;
    for (auto step = written_.find(backup.text); step != written_.end();
         step = written_.find(step->second.previous)) {
      way.push_back(&step->second);
      if (way.size() > written_.size())
        base::fail(Code::corrupt, "packs name each other in a ring");
    }
    FoundFiles files;
    for (; !way.empty(); way.pop_back()) {
      for (const PackId& id : way.back()->packs) add_description(read(id), id, files);
    }
    return files;
  }

 private:
  struct Written {
    std::string previous;
    std::vector<PackId> packs;
  };
  repository::PackDescription read(const PackId& id) {
    repository::PackReader reader(site_.repository.store(), directory_,
                                  site_.repository.protection(), id);
    return reader.description(decompressor_);
  }

  const Site& site_;
  std::string directory_;
  base::Decompressor decompressor_;
  std::map<std::string, Written> written_;
};

/// Pages that no pack holds were zero; pages behind the end were cut off. Inode and hashes are not
/// known any more: the next backup compares the file by content, with the packs' own hashes.
FileEntry entry_of(const FoundFile& found) {
  FileEntry entry = found.entry;
  entry.path = found.file.path;
  entry.size = found.file.size;
  entry.mode = found.file.mode;
  entry.owner = found.file.owner;
  std::uint64_t known = 0;
  for (const Run& run : entry.runs) known += run.pages;
  const std::uint64_t pages = repository::page_count(entry.size);
  if (known > pages) entry.runs = repository::part_of(entry.runs, 0, pages);
  if (known < pages) repository::append_run(entry.runs, {pages - known, {}, {}});
  return entry;
}

}  // namespace

std::uint64_t rebuild_maps(const Site& site, base::Progress& progress) {
  std::uint64_t rebuilt = 0;
  base::Decompressor decompressor;
  for (const BackupInfo& backup : read_catalog(site).backups) {
    const repository::Backups backups(site.repository, backup.place);
    FoundFiles files;
    for (const auto& reference : backups.read_map(backup.id).shards) {
      try {
        backups.read_shard(reference.id, decompressor);
        continue;
      } catch (const Error& error) {
        if (error.code() != Code::corrupt) throw;
      }
      progress.begin(fmt::format("reading what the packs of {} say", backup.id.text), 0);
      const std::string directory = backup.place.directory();
      if (files.empty()) files = Descriptions(site, directory).files_of(backup.id);
      repository::Shard shard;
      for (const auto& [path, found] : files) {
        if (repository::comes_before(path, reference.first_path) ||
            repository::comes_before(reference.last_path, path)) {
          continue;
        }
        shard.files.push_back(entry_of(found));
      }
      std::ranges::sort(shard.files, repository::comes_before, &FileEntry::path);
      std::uint64_t bytes = 0;
      for (const FileEntry& entry : shard.files) bytes += entry.size;
      const std::string name =
          fmt::format("{}/maps/{}", directory, repository::to_string(reference.id));
      site.repository.store().remove(name);  // it is corrupt, or there is none
      backups.rewrite_shard(reference.id, shard);
      if (shard.files.size() != reference.files || bytes != reference.bytes) {
        progress.warn(
            "map shard {} of backup {} could not be rebuilt as it was: {} files of {} "
            "bytes instead of {} of {}",
            repository::to_string(reference.id), backup.id.text, shard.files.size(), bytes,
            reference.files, reference.bytes);
      }
      ++rebuilt;
    }
  }
  return rebuilt;
}

}  // namespace holdfast::operations
