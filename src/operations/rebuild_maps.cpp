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

/// Pages of one file that a pack says it holds.
struct Found {
  std::uint64_t first_page;
  Run run;
};

struct FoundFile {
  repository::PackedFile file;
  std::vector<Found> pages;
  std::optional<std::vector<Run>> noted;  ///< of a file that has no pages of its own
};

/// Everything that the packs of one backup say of themselves.
std::map<std::string, FoundFile> files_of_packs(const Site& site, const std::string& directory,
                                                const repository::BackupId& backup) {
  std::map<std::string, FoundFile> files;
  base::Decompressor decompressor;
  for (const store::ObjectInfo& object : site.repository.store().list(directory + "/packs")) {
    PackId id;
    static_cast<repository::ObjectId&>(id) =
        repository::parse_object_id(object.name.substr(object.name.rfind('/') + 1));
    repository::PackReader reader(site.repository.store(), directory, site.repository.protection(),
                                  id);
    const repository::PackDescription description = reader.description(decompressor);
    if (description.backup != backup.text) continue;
    std::uint32_t slot = 0;
    for (const repository::Extent& extent : description.extents) {
      const repository::PackedFile& file = description.files[extent.file];
      FoundFile& found = files[file.path];
      found.file = file;
      found.pages.push_back({extent.first_page, {extent.pages, id, {slot}}});
      slot += extent.pages;
    }
    for (const repository::OtherFile& other : description.others) {
      FoundFile& found = files[other.file.path];
      found.file = other.file;
      found.noted = other.runs;
    }
  }
  return files;
}

/// Pages that no pack holds were zero.
FileEntry entry_of(FoundFile found) {
  if (found.noted && found.pages.empty()) {
    return {found.file.path, found.file.size, found.file.mode, found.file.owner, 0, 0,
            *found.noted};
  }
  std::ranges::sort(found.pages, {}, &Found::first_page);
  FileEntry entry{found.file.path, found.file.size, found.file.mode, found.file.owner, 0, 0, {}};
  std::uint64_t next = 0;
  for (const Found& each : found.pages) {
    if (each.first_page < next) {
      base::fail(Code::corrupt, "the packs hold a page of \"{}\" twice", found.file.path);
    }
    repository::append_run(entry.runs, {each.first_page - next, {}, {}});
    repository::append_run(entry.runs, each.run);
    next = each.first_page + each.run.pages;
  }
  const std::uint64_t pages = repository::page_count(entry.size);
  if (next > pages)
    entry.size = next * repository::page_bytes;  // it had grown when the pack was made
  if (next < pages) repository::append_run(entry.runs, {pages - next, {}, {}});
  return entry;
}

}  // namespace

std::uint64_t rebuild_maps(const Site& site, base::Progress& progress) {
  std::uint64_t rebuilt = 0;
  base::Decompressor decompressor;
  for (const BackupInfo& backup : read_catalog(site).backups) {
    const repository::Backups backups(site.repository, backup.place);
    std::map<std::string, FoundFile> files;
    for (const auto& reference : backups.read_map(backup.id).shards) {
      try {
        backups.read_shard(reference.id, decompressor);
        continue;
      } catch (const Error& error) {
        if (error.code() != Code::corrupt) throw;
      }
      progress.begin(fmt::format("reading what the packs of {} say", backup.id.text), 0);
      const std::string directory = backup.place.directory();
      if (files.empty()) files = files_of_packs(site, directory, backup.id);
      repository::Shard shard;
      for (const auto& [path, found] : files) {
        if (repository::comes_before(path, reference.first_path) ||
            repository::comes_before(reference.last_path, path)) {
          continue;
        }
        shard.files.push_back(entry_of(found));
      }
      std::ranges::sort(shard.files, repository::comes_before, &FileEntry::path);
      const std::string name =
          fmt::format("{}/maps/{}", directory, repository::to_string(reference.id));
      site.repository.store().remove(name);  // it is corrupt, or there is none
      backups.rewrite_shard(reference.id, shard);
      if (shard.files.size() != reference.files) {
        progress.warn("map shard {} of backup {} could be rebuilt only in part: {} of {} files",
                      repository::to_string(reference.id), backup.id.text, shard.files.size(),
                      reference.files);
      }
      ++rebuilt;
    }
  }
  return rebuilt;
}

}  // namespace holdfast::operations
