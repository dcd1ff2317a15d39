#include "operations/restore_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>

#include "base/beneath.h"
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

/// Where the backup's files go: the directory, and what some directories in it stand for. Each is
/// written only from its own descriptor on.
class Destination {
 public:
  struct Spot {
    const base::Beneath* in;
    std::string path;
    base::fs::path full() const { return in->full(path); }
  };

  Destination(const RestoreFilesRequest& request) : top_(base::Beneath::make(request.directory)) {
    for (const auto& [link, place] : request.tablespaces) {
      elsewhere_.emplace(link, base::Beneath::make(place));
    }
    for (const std::string& link : request.links) {
      elsewhere_.emplace(link, base::Beneath(request.directory / link));
    }
  }

  const base::Beneath& top() const { return top_; }
  bool is_elsewhere(const std::string& name) const { return elsewhere_.contains(name); }
  Spot spot(const std::string& name) const {
    for (std::size_t end = name.size(); !elsewhere_.empty() && end != std::string::npos;
         end = end == 0 ? std::string::npos : name.rfind('/', end - 1)) {
      const auto found = elsewhere_.find(name.substr(0, end));
      if (found != elsewhere_.end()) {
        return {&found->second, end == name.size() ? "" : name.substr(end + 1)};
      }
    }
    return {&top_, name};
  }

 private:
  base::Beneath top_;
  std::map<std::string, base::Beneath> elsewhere_;
};

void give_to(const Destination::Spot& spot, const std::string& owner) {
  if (!base::running_as_root() || owner.empty()) return;
  // Nobody of that name lives here: it stays ours.
  if (const auto found = base::find_owner(owner)) {
    spot.in->set_owner(spot.path, found->first, found->second);
  }
}

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
        destination_(request),
        progress_(progress) {}

  RestoreFilesResult run();

 private:
  void make_directories();
  void remove_strangers(const std::set<std::string>& known);
  void restore_batch(Batch& batch);
  void make_file(const FileEntry& file);
  void clear_zero_runs(const FileEntry& file);
  void restore_units(const Batch& batch);

  const repository::Repository& repository_;
  const repository::Backups& backups_;
  const repository::BackupMap& map_;
  const RestoreFilesRequest& request_;
  const Destination destination_;
  base::Progress& progress_;
  RestoreFilesResult result_;
  std::atomic<std::uint64_t> written_{0};
};

/// What one worker keeps between units.
class UnitWorker {
 public:
  UnitWorker(const repository::Repository& repository, const std::string& directory,
             const RestoreFilesRequest& request, const Destination& destination, const Batch& batch)
      : repository_(repository),
        directory_(directory),
        request_(request),
        destination_(destination),
        batch_(batch) {}

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
        const Destination::Spot spot = spot_of(part);
        writer_.write(*spot.in, spot.path, part.first_page * page_bytes, bytes);
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

  Destination::Spot spot_of(const PackExtent& extent) const {
    return destination_.spot(batch_.files[extent.file].path);
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
      const Destination::Spot spot = spot_of(extent);
      const base::Fd file = spot.in->open(spot.path, O_RDONLY);
      for (std::uint32_t i = 0; i < extent.pages; ++i) {
        const std::uint32_t slot = extent.slot.value + i;
        if (slot >= description_.hashes.size()) walk.refuse_slot();
        std::ranges::fill(page, std::uint8_t{0});
        const std::size_t size = bytes_of_page(extent, extent.first_page + i);
        base::read_at(file, base::MutableView(page).first(size),
                      (extent.first_page + i) * page_bytes, spot.full());
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
  const Destination& destination_;
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
  const auto make = [this](const std::string& name, std::uint32_t mode, const std::string& owner) {
    const Destination::Spot spot = destination_.spot(name);
    if (!spot.path.empty()) {
      const auto status = spot.in->status_of(spot.path);
      if (status && !S_ISDIR(status->st_mode)) spot.in->remove(spot.path);
      spot.in->make_directory(spot.path, 0700);
    }
    spot.in->set_mode(spot.path, mode);
    give_to(spot, owner);
  };
  // "global" is what the data directory itself is: whose, and for whom to read.
  for (const repository::DirectoryEntry& directory : map_.directories) {
    if (directory.path == "global") make("", directory.mode, directory.owner);
  }
  for (const repository::DirectoryEntry& directory : map_.directories) {
    make(directory.path, directory.mode, directory.owner);
    const auto tablespace = request_.tablespaces.find(directory.path);
    if (tablespace == request_.tablespaces.end()) continue;
    const Destination::Spot link{&destination_.top(), directory.path};
    destination_.top().remove_all(link.path);
    destination_.top().make_link(tablespace->second, link.path);
    give_to(link, directory.owner);
  }
}

/// Delta: what the backup does not have goes, file by file; mount points and links to tablespaces
/// stay (pitfall B18).
void Restorer::remove_strangers(const std::set<std::string>& known) {
  const auto walk = [&](const auto& self, const std::string& directory) -> void {
    const Destination::Spot here = destination_.spot(directory);
    for (const std::string& name : here.in->names(here.path)) {
      const std::string full = directory.empty() ? name : directory + "/" + name;
      const std::string below = here.path.empty() ? name : here.path + "/" + name;
      if (full == "holdfast.restore" || full == places_file) continue;
      if (!known.contains(full)) {
        here.in->remove_all(below);
        ++result_.removed;
        continue;
      }
      const auto status = here.in->status_of(below);
      if (destination_.is_elsewhere(full) || (status && S_ISDIR(status->st_mode))) {
        self(self, full);
      }
    }
  };
  walk(walk, "");
}

void Restorer::make_file(const FileEntry& file) {
  const Destination::Spot spot = destination_.spot(file.path);
  if (request_.delta) {
    const auto status = spot.in->status_of(spot.path);
    // What has another name as well belongs to somebody else, too.
    if (status && (!S_ISREG(status->st_mode) || status->st_nlink > 1)) {
      spot.in->remove_all(spot.path);
    }
  }
  // Without delta the directory was empty: what is there now would be a second file of one path.
  const int flags = O_RDWR | O_CREAT | (request_.delta ? 0 : O_EXCL);
  const base::Fd made = spot.in->open(spot.path, flags, file.mode);
  if (::fchmod(made.get(), file.mode) != 0) {
    base::fail_errno(fmt::format("set the mode of \"{}\"", spot.full().string()), errno);
  }
  if (::ftruncate(made.get(), static_cast<off_t>(file.size)) != 0) {
    base::fail_errno(fmt::format("set the size of \"{}\"", spot.full().string()), errno);
  }
  give_to(spot, file.owner);
}

/// Delta: pages that are zero in the backup are made so.
void Restorer::clear_zero_runs(const FileEntry& file) {
  std::uint64_t at = 0;
  const Destination::Spot spot = destination_.spot(file.path);
  base::Fd open;
  base::Bytes page(page_bytes);
  const base::Bytes zeros(page_bytes);
  for (const repository::Run& run : file.runs) {
    const std::uint64_t end = at + run.pages * page_bytes;
    for (; !run.pack && at < end; at += page_bytes) {
      if (!open) open = spot.in->open(spot.path, O_RDWR);
      const std::size_t size = base::read_at(open, page, at, spot.full());
      if (std::ranges::equal(base::View(page).first(size), base::View(zeros).first(size))) continue;
      base::write_at(open, base::View(zeros).first(size), at, spot.full());
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
    UnitWorker worker(repository_, backups_.place().directory(), request_, destination_, batch);
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
