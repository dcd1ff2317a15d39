#include "operations/restore_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/page_writer.h"
#include "operations/tablespace_places.h"
#include "postgres/page.h"
#include "repository/pack_walk.h"

namespace holdfast::operations {

namespace {

using base::fs::path;
using repository::FileEntry;
using repository::frame_bytes;
using repository::PackExtent;
using repository::PackId;
using repository::page_bytes;
using repository::pages_per_frame;

/// How much of the map is worked on at a time: bounds memory, whatever the size of the backup.
constexpr std::size_t batch_extents = 1000000;
constexpr std::size_t batch_files = 100000;
/// Workers take pieces of about this size.
constexpr std::uint64_t unit_pages = std::uint64_t{32} * pages_per_frame;

/// Some files, and what they need, by pack.
struct Batch {
  std::vector<FileEntry> files;  ///< without their runs, except for runs of zeros (delta)
  std::map<PackId, std::vector<PackExtent>> packs;
  std::size_t extents = 0;
};

struct Unit {
  PackId pack;
  std::span<const PackExtent> extents;
};

class Restorer {
 public:
  Restorer(const repository::Repository& repository, const repository::Backups& backups,
           const repository::BackupMap& map, const RestoreFilesRequest& request,
           base::Progress& progress)
      : repository_(repository),
        backups_(backups),
        map_(map),
        request_(request),
        progress_(progress) {}

  RestoreFilesResult run();

 private:
  void make_directories();
  void remove_strangers(const std::set<std::string>& known);
  void restore_batch(Batch& batch);
  void make_file(const FileEntry& file);
  void clear_zero_runs(const FileEntry& file);
  void restore_units(const Batch& batch);
  path target(const std::string& name) const { return request_.directory / name; }

  const repository::Repository& repository_;
  const repository::Backups& backups_;
  const repository::BackupMap& map_;
  const RestoreFilesRequest& request_;
  base::Progress& progress_;
  RestoreFilesResult result_;
  std::atomic<std::uint64_t> written_{0};
};

/// What one worker keeps between units.
class UnitWorker {
 public:
  UnitWorker(const repository::Repository& repository, const std::string& directory,
             const RestoreFilesRequest& request, const Batch& batch)
      : repository_(repository), directory_(directory), request_(request), batch_(batch) {}

  /// Returns how many bytes were written.
  std::uint64_t restore(const Unit& unit) {
    open(unit.pack);
    written_ = 0;
    repository::PackWalk walk(*reader_, pack_, decompressor_, buffer_.view());
    for (auto left = unit.extents; !left.empty();) {
      const std::size_t count = repository::PackWalk::near(left);
      std::vector<PackExtent> wanted(left.begin(),
                                     left.begin() + static_cast<std::ptrdiff_t>(count));
      left = left.subspan(count);
      if (request_.delta) keep_what_differs(wanted, walk);
      walk.visit(wanted, [this](const PackExtent& part, base::View pages) {
        const std::size_t last = bytes_of_page(part, part.first_page + part.pages - 1);
        const base::View bytes = pages.first((part.pages - 1) * page_bytes + last);
        writer_.write(path_of(part), part.first_page * page_bytes, bytes);
        written_ += bytes.size();
      });
    }
    return written_;
  }

 private:
  void open(const PackId& pack) {
    if (reader_ && pack == pack_) return;
    reader_.emplace(repository_.store(), directory_, repository_.protection(), pack);
    pack_ = pack;
    if (request_.delta) description_ = reader_->description(decompressor_);
  }

  path path_of(const PackExtent& extent) const {
    return request_.directory / batch_.files[extent.file].path;
  }

  /// How many bytes of page `page` belong to the file.
  std::size_t bytes_of_page(const PackExtent& extent, std::uint64_t page) const {
    return std::min<std::uint64_t>(page_bytes, batch_.files[extent.file].size - page * page_bytes);
  }

  /// Delta: takes out of `extents` the pages that stand in the file already, by their hashes.
  void keep_what_differs(std::vector<PackExtent>& extents, const repository::PackWalk& walk) {
    std::vector<PackExtent> kept;
    base::Bytes page(page_bytes);
    for (const PackExtent& extent : extents) {
      const path name = path_of(extent);
      const base::Fd file = base::open_file(name, O_RDONLY);
      for (std::uint32_t i = 0; i < extent.pages; ++i) {
        const std::uint32_t slot = extent.slot.value + i;
        if (slot >= description_.hashes.size()) walk.refuse_slot();
        std::ranges::fill(page, std::uint8_t{0});
        const std::size_t size = bytes_of_page(extent, extent.first_page + i);
        base::read_at(file, base::MutableView(page).first(size),
                      (extent.first_page + i) * page_bytes, name);
        if (repository_.page_hash().hash64(page) == description_.hashes[slot]) continue;
        if (!kept.empty() && kept.back().file == extent.file &&
            kept.back().slot.value + kept.back().pages == slot &&
            kept.back().first_page + kept.back().pages == extent.first_page + i) {
          ++kept.back().pages;
        } else {
          kept.push_back({{slot}, 1, extent.file, extent.first_page + i});
        }
      }
    }
    extents = std::move(kept);
  }

  const repository::Repository& repository_;
  const std::string directory_;
  const RestoreFilesRequest& request_;
  const Batch& batch_;
  std::optional<repository::PackReader> reader_;
  PackId pack_;
  repository::PackDescription description_;
  base::Decompressor decompressor_;
  AlignedBuffer buffer_{frame_bytes};
  PageWriter writer_;
  std::uint64_t written_ = 0;
};

void Restorer::make_directories() {
  const auto make = [](const path& directory, std::uint32_t mode, const std::string& owner) {
    // A link to a directory (pg_wal on a disk of its own) stays what it is.
    const auto status = base::status_of(directory, false);
    if (status && !base::fs::is_directory(directory)) base::fs::remove(directory);
    base::make_directories(directory);
    base::fs::permissions(directory, static_cast<base::fs::perms>(mode));
    give_to(directory, owner);
  };
  std::uint32_t top_mode = 0700;
  std::string top_owner;
  for (const repository::DirectoryEntry& directory : map_.directories) {
    if (directory.path == "global") {
      top_mode = directory.mode;
      top_owner = directory.owner;
    }
  }
  make(request_.directory, top_mode, top_owner);
  for (const repository::DirectoryEntry& directory : map_.directories) {
    const auto tablespace = request_.tablespaces.find(directory.path);
    if (tablespace == request_.tablespaces.end()) {
      make(target(directory.path), directory.mode, directory.owner);
      continue;
    }
    make(tablespace->second, directory.mode, directory.owner);
    const path link = target(directory.path);
    if (base::status_of(link, false)) base::fs::remove_all(link);
    base::fs::create_symlink(tablespace->second, link);
    give_to(link, directory.owner);
  }
}

/// Delta: what the backup does not have goes, file by file; mount points and links to tablespaces
/// stay (pitfall B18).
void Restorer::remove_strangers(const std::set<std::string>& known) {
  const auto walk = [&](const auto& self, const path& directory,
                        const std::string& prefix) -> void {
    for (const std::string& name :
         base::directory_names(directory).value_or(std::vector<std::string>{})) {
      const std::string full = prefix + name;
      const path here = directory / name;
      const auto status = base::status_of(here, false);
      if (!status || full == "holdfast.restore" || full == places_file) continue;
      if (known.contains(full)) {
        if (S_ISDIR(status->st_mode) ||
            (S_ISLNK(status->st_mode) && base::fs::is_directory(here))) {
          self(self, here, full + "/");
        }
        continue;
      }
      base::fs::remove_all(here);
      ++result_.removed;
    }
  };
  walk(walk, request_.directory, "");
}

void Restorer::make_file(const FileEntry& file) {
  const path name = target(file.path);
  if (request_.delta) {
    const auto status = base::status_of(name, false);
    // What has another name as well belongs to somebody else, too.
    if (status && (!S_ISREG(status->st_mode) || status->st_nlink > 1)) base::fs::remove_all(name);
  }
  // Without delta the directory was empty: what is there now would be a second file of one path.
  const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | (request_.delta ? 0 : O_EXCL);
  const base::Fd made = base::open_file(name, flags, file.mode);
  if (::fchmod(made.get(), file.mode) != 0) {
    base::fail_errno(fmt::format("set the mode of \"{}\"", name.string()), errno);
  }
  if (::ftruncate(made.get(), static_cast<off_t>(file.size)) != 0) {
    base::fail_errno(fmt::format("set the size of \"{}\"", name.string()), errno);
  }
  if (base::running_as_root()) give_to(name, file.owner);
}

/// Delta: pages that are zero in the backup are made so.
void Restorer::clear_zero_runs(const FileEntry& file) {
  std::uint64_t at = 0;
  const path name = target(file.path);
  base::Fd open;
  base::Bytes page(page_bytes);
  const base::Bytes zeros(page_bytes);
  for (const repository::Run& run : file.runs) {
    const std::uint64_t end = at + run.pages * page_bytes;
    for (; !run.pack && at < end; at += page_bytes) {
      if (!open) open = base::open_file(name, O_RDWR);
      const std::size_t size = base::read_at(open, page, at, name);
      if (std::ranges::equal(base::View(page).first(size), base::View(zeros).first(size))) continue;
      base::write_at(open, base::View(zeros).first(size), at, name);
      written_ += size;
    }
    at = end;
  }
}

void Restorer::restore_units(const Batch& batch) {
  std::vector<Unit> units;
  for (const auto& [pack, extents] : batch.packs) {
    std::size_t begin = 0;
    std::uint64_t pages = 0;
    for (std::size_t i = 0; i < extents.size(); ++i) {
      pages += extents[i].pages;
      if (pages < unit_pages && i + 1 < extents.size()) continue;
      units.push_back({pack, std::span(extents).subspan(begin, i + 1 - begin)});
      begin = i + 1;
      pages = 0;
    }
  }
  std::atomic<std::size_t> next = 0;
  base::run_workers(request_.workers, [&](unsigned, const std::stop_token& stop) {
    UnitWorker worker(repository_, backups_.place().directory(), request_, batch);
    for (std::size_t i = next++; i < units.size() && !stop.stop_requested(); i = next++) {
      written_ += worker.restore(units[i]);
      std::uint64_t pages = 0;
      for (const PackExtent& extent : units[i].extents) pages += extent.pages;
      progress_.add(pages * page_bytes);
    }
  });
}

void Restorer::restore_batch(Batch& batch) {
  std::atomic<std::size_t> next = 0;
  base::run_workers(request_.workers, [&](unsigned, const std::stop_token& stop) {
    constexpr std::size_t step = 64;
    for (std::size_t i = (next += step) - step; i < batch.files.size() && !stop.stop_requested();
         i = (next += step) - step) {
      for (std::size_t j = i; j < std::min(i + step, batch.files.size()); ++j) {
        make_file(batch.files[j]);
        if (request_.delta) clear_zero_runs(batch.files[j]);
      }
    }
  });
  for (auto& [pack, extents] : batch.packs) {
    std::ranges::sort(extents, {}, &PackExtent::slot);
  }
  restore_units(batch);
  batch = {};
}

RestoreFilesResult Restorer::run() {
  std::uint64_t total = 0;
  for (const repository::ShardReference& shard : map_.shards) total += shard.bytes;
  progress_.begin("restoring", total);
  make_directories();
  base::Decompressor decompressor;
  std::set<std::string> known;
  Batch batch;
  for (const repository::ShardReference& reference : map_.shards) {
    base::stop_if_interrupted();
    repository::Shard shard = backups_.read_shard(reference.id, decompressor);
    for (FileEntry& file : shard.files) {
      if (file.path == places_file) continue;  // it says what another directory owns
      const auto index = static_cast<std::uint32_t>(batch.files.size());
      std::uint64_t page = 0;
      for (const repository::Run& run : file.runs) {
        if (run.pack) {
          batch.packs[*run.pack].push_back(
              {run.slot, static_cast<std::uint32_t>(run.pages), index, page});
          ++batch.extents;
        } else {
          progress_.add(run.pages * page_bytes);
        }
        page += run.pages;
      }
      if (request_.delta) known.insert(file.path);
      if (!request_.delta) file.runs = {};
      ++result_.files;
      result_.bytes += file.size;
      batch.files.push_back(std::move(file));
    }
    if (batch.extents > batch_extents || batch.files.size() > batch_files) restore_batch(batch);
  }
  restore_batch(batch);
  if (request_.delta) {
    for (const repository::DirectoryEntry& directory : map_.directories)
      known.insert(directory.path);
    remove_strangers(known);
  }
  result_.written = written_;
  return result_;
}

}  // namespace

void give_to(const path& name, const std::string& owner) {
  if (!base::running_as_root() || owner.empty()) return;
  const auto found = base::find_owner(owner);
  if (!found) return;  // nobody of that name lives here: the files stay ours
  if (::lchown(name.c_str(), found->first, found->second) != 0) {
    base::fail_errno(fmt::format("change the owner of \"{}\"", name.string()), errno);
  }
}

RestoreFilesResult restore_files(const repository::Repository& repository,
                                 const repository::Backups& backups,
                                 const repository::BackupMap& map,
                                 const RestoreFilesRequest& request, base::Progress& progress) {
  return Restorer(repository, backups, map, request, progress).run();
}

}  // namespace holdfast::operations
