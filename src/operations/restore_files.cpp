#include "operations/restore_files.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <set>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/page_writer.h"
#include "postgres/page.h"
#include "repository/pack.h"

namespace holdfast::operations {

namespace {

using base::fs::path;
using repository::FileEntry;
using repository::frame_bytes;
using repository::PackId;
using repository::page_bytes;
using repository::pages_per_frame;
using repository::Slot;

/// How much of the map is worked on at a time: bounds memory, whatever the size of the backup.
constexpr std::size_t batch_extents = 1000000;
constexpr std::size_t batch_files = 100000;
/// Workers take pieces of about this size.
constexpr std::uint64_t unit_pages = std::uint64_t{32} * pages_per_frame;
/// Frames that stand together are read with one request, up to so many.
constexpr std::uint32_t fetch_frames = 16;

/// Pages of one pack that belong together into one file.
struct PackExtent {
  Slot slot;
  std::uint32_t pages = 0;
  std::uint32_t file = 0;  ///< index into the batch's files
  std::uint64_t first_page = 0;
};

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
    std::size_t next = 0;
    while (next < unit.extents.size()) next = restore_group(unit.extents, next);
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

  /// Reads, in one request, the frames of extents from `first` on that stand close together, and
  /// writes their pages. Returns the first extent that was not dealt with.
  std::size_t restore_group(std::span<const PackExtent> extents, std::size_t first) {
    const std::uint32_t first_frame = extents[first].slot.frame();
    std::size_t end = first;
    std::uint32_t last_frame = first_frame;
    for (; end < extents.size(); ++end) {
      const std::uint32_t from = extents[end].slot.frame();
      const std::uint32_t to = Slot{extents[end].slot.value + extents[end].pages - 1}.frame();
      if (end > first && (from > last_frame + 1 || to >= first_frame + fetch_frames)) break;
      last_frame = std::max(last_frame, to);
    }
    std::vector<PackExtent> wanted(extents.begin() + static_cast<std::ptrdiff_t>(first),
                                   extents.begin() + static_cast<std::ptrdiff_t>(end));
    if (request_.delta) keep_what_differs(wanted);
    write_extents(wanted);
    return end;
  }

  /// Goes through the frames once, in order; files with equal content may need the same pages.
  void write_extents(const std::vector<PackExtent>& extents) {
    std::vector<PackExtent> active;  // have pages in the next frame
    std::size_t next = 0;
    fetched_end_ = 0;
    while (next < extents.size() || !active.empty()) {
      const std::uint32_t frame =
          active.empty() ? extents[next].slot.frame() : active.front().slot.frame();
      for (; next < extents.size() && extents[next].slot.frame() == frame; ++next) {
        active.push_back(extents[next]);
      }
      if (frame >= fetched_end_) fetch(frame, active, std::span(extents).subspan(next));
      const base::MutableView raw = buffer_.view().first(reader_->raw_size(frame));
      reader_->decode(frame, decompressor_, raw);
      std::vector<PackExtent> going_on;
      for (const PackExtent& extent : active) {
        const std::uint32_t here = std::min(extent.pages, pages_per_frame - extent.slot.page());
        write_pages(extent, here, raw);
        if (here == extent.pages) continue;
        going_on.push_back({{extent.slot.value + here},
                            extent.pages - here,
                            extent.file,
                            extent.first_page + here});
      }
      active = std::move(going_on);
    }
  }

  /// Brings the frames from `frame` up to the next one that nobody needs.
  void fetch(std::uint32_t frame, std::span<const PackExtent> active,
             std::span<const PackExtent> later) {
    std::uint32_t end = frame + 1;
    const auto include = [&end](const PackExtent& extent) {
      end = std::max(end, Slot{extent.slot.value + extent.pages - 1}.frame() + 1);
    };
    for (const PackExtent& extent : active) include(extent);
    for (const PackExtent& extent : later) {
      if (extent.slot.frame() > end) break;
      include(extent);
    }
    fetched_end_ = std::min({end, frame + fetch_frames, reader_->data_frames()});
    if (frame >= fetched_end_) refuse_slot();
    reader_->fetch(frame, fetched_end_ - frame);
  }

  [[noreturn]] void refuse_slot() const {
    base::fail(base::Code::corrupt, "pack {} does not hold a page that a map says it holds",
               repository::to_string(pack_));
  }

  void write_pages(const PackExtent& extent, std::uint32_t pages, base::View raw) {
    const std::size_t at = extent.slot.page() * page_bytes;
    if (at + pages * page_bytes > raw.size()) refuse_slot();
    const std::size_t last = bytes_of_page(extent, extent.first_page + pages - 1);
    const base::View bytes = raw.subspan(at, (pages - 1) * page_bytes + last);
    writer_.write(path_of(extent), extent.first_page * page_bytes, bytes);
    written_ += bytes.size();
  }

  /// Delta: takes out of `extents` the pages that stand in the file already, by their hashes.
  void keep_what_differs(std::vector<PackExtent>& extents) {
    std::vector<PackExtent> kept;
    base::Bytes page(page_bytes);
    for (const PackExtent& extent : extents) {
      const path name = path_of(extent);
      const base::Fd file = base::open_file(name, O_RDONLY);
      for (std::uint32_t i = 0; i < extent.pages; ++i) {
        const std::uint32_t slot = extent.slot.value + i;
        if (slot >= description_.hashes.size()) refuse_slot();
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
  std::uint32_t fetched_end_ = 0;  ///< the frame behind those that were fetched
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
      if (!status || full == "holdfast.restore") continue;
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
    if (status && !S_ISREG(status->st_mode)) base::fs::remove_all(name);
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
  const std::size_t colon = owner.find(':');
  const std::string user = owner.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : owner.substr(colon + 1);
  const auto number = [](const std::string& text) -> std::optional<std::uint32_t> {
    std::uint32_t value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  std::array<char, 4096> buffer{};
  passwd user_entry{};
  passwd* found_user = nullptr;
  ::getpwnam_r(user.c_str(), &user_entry, buffer.data(), buffer.size(), &found_user);
  const auto uid = found_user != nullptr ? std::optional(found_user->pw_uid) : number(user);
  struct group group_entry {};
  struct group* found_group = nullptr;
  ::getgrnam_r(group.c_str(), &group_entry, buffer.data(), buffer.size(), &found_group);
  const auto gid = found_group != nullptr ? std::optional(found_group->gr_gid) : number(group);
  if (!uid || !gid) return;  // nobody of that name lives here: the files stay ours
  if (::lchown(name.c_str(), *uid, *gid) != 0) {
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
