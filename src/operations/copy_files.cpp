#include "operations/copy_files.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "base/error.h"
#include "base/workers.h"
#include "operations/read_pages.h"
#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using base::Bytes;
using repository::FileEntry;
using repository::frame_bytes;
using repository::page_bytes;
using repository::Run;

/// A large file is cut into parts of this size, so that several workers can share it.
constexpr std::uint64_t part_bytes = 32 << 20;
/// Small files are handed out together, up to this size.
constexpr std::uint64_t batch_bytes = 1 << 20;
/// How far the walk may run ahead of the workers.
constexpr std::size_t queue_limit = 20000;
constexpr std::size_t read_bytes = 512 << 10;
/// A shard is closed at this many runs or files: some hundred kilobytes.
constexpr std::size_t shard_weight = 32768;
constexpr std::chrono::seconds check_interval(5);
/// Files up to one frame are looked up by content; so many of them are remembered.
constexpr std::size_t remembered_files = 200000;

/// A file on its way through the queue.
struct Item {
  FileEntry entry;
  SourceFile source;
  std::shared_ptr<base::Fd> file;  ///< open while parts are being read
  std::once_flag opened;
  bool vanished = false;
  std::vector<std::vector<Run>> parts;    ///< runs of each part
  std::vector<std::uint64_t> part_sizes;  ///< bytes that each part had
  std::size_t parts_taken = 0;
  std::size_t parts_done = 0;
  DamagedFile damage;
};

bool holds_pages(const std::vector<Run>& runs) {
  return std::ranges::any_of(runs, [](const Run& run) { return run.pack.has_value(); });
}

std::string name_of_owner(std::uint32_t uid, std::uint32_t gid) {
  std::array<char, 4096> buffer{};
  passwd user{};
  passwd* found_user = nullptr;
  ::getpwuid_r(uid, &user, buffer.data(), buffer.size(), &found_user);
  std::string name = found_user != nullptr ? found_user->pw_name : std::to_string(uid);
  group owners{};
  group* found_group = nullptr;
  ::getgrgid_r(gid, &owners, buffer.data(), buffer.size(), &found_group);
  return name + ":" + (found_group != nullptr ? found_group->gr_name : std::to_string(gid));
}

/// Names of owners, looked up once each. Used by the walking thread only.
class Owners {
 public:
  const std::string& name(std::uint32_t uid, std::uint32_t gid) {
    auto& name = names_[{uid, gid}];
    if (name.empty()) name = name_of_owner(uid, gid);
    return name;
  }

 private:
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> names_;
};

/// Where small files are, by their content (keyed hash): equal ones are stored once.
class KnownFiles {
 public:
  std::optional<std::vector<Run>> find(const base::Hash128& hash) {
    const std::lock_guard lock(mutex_);
    const auto found = runs_.find(hash);
    if (found == runs_.end()) return std::nullopt;
    return found->second;
  }
  void remember(const base::Hash128& hash, const std::vector<Run>& runs) {
    const std::lock_guard lock(mutex_);
    if (runs_.size() < remembered_files) runs_.try_emplace(hash, runs);
  }

 private:
  struct Low {
    std::size_t operator()(const base::Hash128& hash) const { return hash.low; }
  };
  std::mutex mutex_;
  std::unordered_map<base::Hash128, std::vector<Run>, Low> runs_;
};

/// Takes finished files in path order and writes shards.
class ShardBuilder {
 public:
  explicit ShardBuilder(const repository::Backups& backups)
      : backups_(backups), compressor_(base::Compressor::Effort::dense) {}

  void add(FileEntry entry, CopyResult& result) {
    weight_ += 1 + entry.runs.size();
    bytes_ += entry.size;
    shard_.files.push_back(std::move(entry));
    if (weight_ >= shard_weight) close(result);
  }

  void close(CopyResult& result) {
    if (shard_.files.empty()) return;
    const repository::ShardId id = backups_.write_shard(shard_, compressor_);
    result.shards.push_back(
        {id, shard_.files.front().path, shard_.files.back().path, shard_.files.size(), bytes_});
    result.files += shard_.files.size();
    result.bytes += bytes_;
    shard_.files.clear();
    weight_ = 0;
    bytes_ = 0;
  }

 private:
  const repository::Backups& backups_;
  base::Compressor compressor_;
  repository::Shard shard_;
  std::size_t weight_ = 0;
  std::uint64_t bytes_ = 0;
};

/// A piece of work: part `part` of a file.
struct Piece {
  Item* item = nullptr;
  std::size_t part = 0;
};

class Copier {
 public:
  Copier(const repository::Repository& repository, const repository::Backups& backups,
         const CopyRequest& request, base::Progress& progress)
      : repository_(repository),
        request_(request),
        progress_(progress),
        shards_(backups),
        directory_(backups.place().directory()) {}

  CopyResult run() {
    progress_.begin("backing up", 0);
    // One more thread than workers: the walk.
    base::run_workers(request_.workers + 1, [this](unsigned index, const std::stop_token& stop) {
      if (index == 0) {
        walk(stop);
      } else {
        work(index, stop);
      }
    });
    shards_.close(result_);
    std::ranges::sort(result_.damaged, {}, &DamagedFile::path);
    return std::move(result_);
  }

 private:
  void walk(const std::stop_token& stop);
  void queue_file(const postgres::DirectoryEntry& found, const std::stop_token& stop);
  void work(unsigned index, const std::stop_token& stop);
  std::vector<Piece> take(const std::stop_token& stop);
  void copy(const Piece& piece, repository::PackWriter& writer, Bytes& buffer);
  void open(Item& item);
  std::vector<Run> store_pages(base::View bytes, std::uint64_t first_page,
                               repository::PackWriter& writer, std::vector<Run> runs);
  void copy_small(Item& item, repository::PackWriter& writer, Bytes& buffer);
  void copy_part(const Piece& piece, repository::PackWriter& writer, Bytes& buffer);
  void finish(const Piece& piece, std::vector<Run> runs, std::uint64_t size,
              const DamagedFile& damage);
  void pass_on_finished(std::unique_lock<std::mutex>& lock);

  const repository::Repository& repository_;
  const CopyRequest& request_;
  base::Progress& progress_;
  KnownFiles known_;
  Owners owners_;

  std::mutex mutex_;  // guards all below
  std::condition_variable_any changed_;
  std::deque<std::unique_ptr<Item>> queue_;  // in path order; finished ones leave at the front
  std::size_t next_ = 0;                     // index in queue_ of the first with parts to take
  bool walked_ = false;
  std::uint64_t total_ = 0;

  std::mutex shard_mutex_;  // taken before mutex_; keeps shards in path order
  ShardBuilder shards_;
  CopyResult result_;
  std::string directory_;
};

void Copier::walk(const std::stop_token& stop) {
  postgres::walk_data_directory(
      request_.data_directory, request_.version_directory,
      [&](const postgres::DirectoryEntry& found) {
        if (stop.stop_requested()) base::fail(base::Code::interrupted, "stopped");
        if (found.kind == postgres::DirectoryEntry::Kind::directory) {
          result_.directories.push_back(
              {found.path, found.mode, owners_.name(found.uid, found.gid)});
        } else if (found.path != "global/pg_control") {
          queue_file(found, stop);
        }
      });
  const std::lock_guard lock(mutex_);
  walked_ = true;
  changed_.notify_all();
}

void Copier::queue_file(const postgres::DirectoryEntry& found, const std::stop_token& stop) {
  auto item = std::make_unique<Item>();
  item->entry = {found.path,  found.size,  found.mode, owners_.name(found.uid, found.gid),
                 found.inode, found.birth, {}};
  item->source.path = request_.data_directory / found.path;
  item->source.name = found.path;
  if (const auto relation = postgres::relation_file(found.path)) {
    item->source.check_pages = request_.checksums;
    item->source.first_block = relation->segment * request_.segment_blocks;
  }
  const std::size_t parts = std::max<std::size_t>(1, (found.size + part_bytes - 1) / part_bytes);
  item->parts.resize(parts);
  item->part_sizes.resize(parts);
  item->damage.path = found.path;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] { return queue_.size() < queue_limit; });
  queue_.push_back(std::move(item));
  total_ += found.size;
  progress_.set_total(total_);
  changed_.notify_all();
}

std::vector<Piece> Copier::take(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  std::vector<Piece> pieces;
  std::uint64_t bytes = 0;
  changed_.wait(lock, stop, [&] { return next_ < queue_.size() || walked_; });
  while (next_ < queue_.size() && bytes < batch_bytes && !stop.stop_requested()) {
    Item& item = *queue_[next_];
    pieces.push_back({&item, item.parts_taken});
    bytes += std::min(part_bytes, item.entry.size);
    if (++item.parts_taken == item.parts.size()) ++next_;
  }
  return pieces;
}

void Copier::work(unsigned index, const std::stop_token& stop) {
  repository::PackWriter writer(repository_.store(), directory_, repository_.protection(),
                                repository_.page_hash(),
                                {.backup = request_.backup, .stamp = request_.stamp});
  Bytes buffer;
  auto checked = std::chrono::steady_clock::now();
  while (!stop.stop_requested()) {
    const auto now = std::chrono::steady_clock::now();
    if (index == 1 && now - checked > check_interval) {
      request_.check();
      checked = now;
    }
    const std::vector<Piece> pieces = take(stop);
    if (pieces.empty()) break;
    for (const Piece& piece : pieces) {
      if (stop.stop_requested()) return;
      copy(piece, writer, buffer);
    }
  }
  if (stop.stop_requested()) return;
  writer.finish();
  const std::lock_guard lock(mutex_);
  result_.packs.insert(result_.packs.end(), writer.packs().begin(), writer.packs().end());
  result_.stored_bytes += writer.stored_bytes();
}

void Copier::open(Item& item) {
  std::call_once(item.opened, [&] {
    auto file = base::open_if_exists(item.source.path, O_RDONLY);
    if (file) {
      item.file = std::make_shared<base::Fd>(*std::move(file));
    } else {
      item.vanished = true;
    }
  });
}

void Copier::copy(const Piece& piece, repository::PackWriter& writer, Bytes& buffer) {
  open(*piece.item);
  if (piece.item->vanished) {
    finish(piece, {}, 0, {});
  } else if (piece.item->entry.size <= frame_bytes) {
    copy_small(*piece.item, writer, buffer);
  } else {
    copy_part(piece, writer, buffer);
  }
}

std::vector<Run> Copier::store_pages(base::View bytes, std::uint64_t first_page,
                                     repository::PackWriter& writer, std::vector<Run> runs) {
  for (std::size_t at = 0; at < bytes.size(); at += page_bytes) {
    const base::View page = bytes.subspan(at, std::min(page_bytes, bytes.size() - at));
    if (page.size() == page_bytes && postgres::is_zero_page(page)) {
      repository::append_run(runs, {1, {}, {}});
      continue;
    }
    const auto place = writer.add(page, first_page + at / page_bytes);
    repository::append_run(runs, {1, place.pack, place.slot});
  }
  return runs;
}

void Copier::copy_small(Item& item, repository::PackWriter& writer, Bytes& buffer) {
  buffer.resize(item.entry.size);
  DamagedFile damage;
  buffer.resize(read_pages(*item.file, item.source, 0, buffer, damage));
  const base::Hash128 hash = repository_.page_hash().hash128(buffer);
  std::vector<Run> runs;
  repository::PackedFile file{item.entry.path, buffer.size(), item.entry.mode, item.entry.owner};
  bool stored = false;
  if (auto known = known_.find(hash)) {
    runs = *std::move(known);
  } else {
    writer.begin_file(file);
    runs = store_pages(buffer, 0, writer, {});
    known_.remember(hash, runs);
    stored = holds_pages(runs);
  }
  if (!stored) writer.note({std::move(file), runs});
  progress_.add(item.entry.size);
  finish({&item, 0}, std::move(runs), buffer.size(), damage);
}

void Copier::copy_part(const Piece& piece, repository::PackWriter& writer, Bytes& buffer) {
  Item& item = *piece.item;
  const std::uint64_t begin = piece.part * part_bytes;
  const std::uint64_t end = std::min(begin + part_bytes, item.entry.size);
  const repository::PackedFile file{item.entry.path, item.entry.size, item.entry.mode,
                                    item.entry.owner};
  writer.begin_file(file);
  std::vector<Run> runs;
  DamagedFile damage;
  std::uint64_t at = begin;
  while (at < end) {
    const std::size_t wanted = std::min<std::uint64_t>(read_bytes, end - at);
    buffer.resize(wanted);
    const std::size_t size = read_pages(*item.file, item.source, at, buffer, damage);
    runs = store_pages(base::View(buffer).first(size), at / page_bytes, writer, std::move(runs));
    progress_.add(wanted);
    at += size;
    if (size < wanted) break;  // it was truncated
  }
  if (!holds_pages(runs)) {
    writer.note({file, {{repository::page_count(item.entry.size), {}, {}}}});
  }
  finish(piece, std::move(runs), at - begin, damage);
}

void Copier::finish(const Piece& piece, std::vector<Run> runs, std::uint64_t size,
                    const DamagedFile& damage) {
  std::unique_lock lock(mutex_);
  Item& item = *piece.item;
  item.parts[piece.part] = std::move(runs);
  item.part_sizes[piece.part] = size;
  item.damage.pages += damage.pages;
  item.damage.first.insert(item.damage.first.end(), damage.first.begin(), damage.first.end());
  if (++item.parts_done == item.parts.size()) {
    item.file.reset();
    if (queue_.front().get() == &item) pass_on_finished(lock);
  }
}

/// The size that a file had as a whole, and its runs: up to the first part that came out short.
void join_parts(Item& item) {
  FileEntry& entry = item.entry;
  std::uint64_t expected = 0;
  std::uint64_t size = 0;
  for (std::size_t part = 0; part < item.parts.size(); ++part) {
    expected = std::min((part + 1) * part_bytes, entry.size);
    for (const Run& run : item.parts[part]) repository::append_run(entry.runs, run);
    size += item.part_sizes[part];
    if (size < expected) break;
  }
  entry.size = size;
}

void Copier::pass_on_finished(std::unique_lock<std::mutex>& lock) {
  std::vector<std::unique_ptr<Item>> finished;
  lock.unlock();
  // Whoever holds shard_mutex_ takes all that is finished by then, so order is kept.
  const std::lock_guard shard_lock(shard_mutex_);
  lock.lock();
  while (!queue_.empty() && queue_.front()->parts_done == queue_.front()->parts.size()) {
    finished.push_back(std::move(queue_.front()));
    queue_.pop_front();
    --next_;
  }
  changed_.notify_all();
  lock.unlock();
  for (const std::unique_ptr<Item>& item : finished) {
    if (item->vanished) continue;
    join_parts(*item);
    if (item->damage.pages > 0) {
      std::ranges::sort(item->damage.first);
      result_.damaged.push_back(std::move(item->damage));
    }
    shards_.add(std::move(item->entry), result_);
  }
}

}  // namespace

CopyResult copy_files(const repository::Repository& repository, const repository::Backups& backups,
                      const CopyRequest& request, base::Progress& progress) {
  return Copier(repository, backups, request, progress).run();
}

}  // namespace holdfast::operations
