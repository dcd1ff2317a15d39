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

#include "base/error.h"
#include "base/workers.h"
#include "operations/read_pages.h"
#include "operations/shard_builder.h"
#include "operations/store_pages.h"
#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using base::Bytes;
using repository::FileEntry;
using repository::page_bytes;
using repository::Run;

/// A large file is cut into parts of this size, so that several workers can share it.
constexpr std::uint64_t part_bytes = 32 << 20;
/// Small files are handed out together, up to this size.
constexpr std::uint64_t batch_bytes = 1 << 20;
/// How far the walk may run ahead of the workers, in files and in runs of their previous entries.
constexpr std::size_t queue_limit = 20000;
constexpr std::size_t queue_runs_limit = 4 << 20;
constexpr std::size_t read_bytes = 512 << 10;
constexpr std::chrono::seconds check_interval(5);
/// Of so many files that are said to be unchanged one page is looked at.
constexpr std::uint64_t samples_one_in = 64;

/// A file on its way through the queue.
struct Item {
  FileEntry entry;
  SourceFile source;
  std::shared_ptr<base::Fd> file;  ///< open while parts are being read
  std::once_flag opened;
  bool vanished = false;
  std::optional<FileComparison> comparison;
  std::size_t shard = 0;  ///< of the previous backup, where its path belongs
  bool unchanged = false;
  struct Part {
    StoredPages pages;
    std::uint64_t size = 0;  ///< bytes that it had
    DamagedFile damage;
  };
  std::vector<Part> parts;
  std::size_t parts_taken = 0;
  std::size_t parts_done = 0;
  DamagedFile damage;

  std::size_t previous_runs() const {
    const FileEntry* previous = comparison->previous();
    return previous == nullptr ? 0 : previous->runs.size();
  }
};

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
        previous_files_(backups, previous_shards(request.compare)),
        store_(repository, backups.place(), request.compare),
        shards_(backups, previous_shards(request.compare)),
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
    shards_.finish();
    result_.shards = shards_.shards();
    result_.kept_shards = shards_.kept();
    for (const repository::ShardReference& shard : result_.shards) {
      result_.files += shard.files;
      result_.bytes += shard.bytes;
    }
    if (previous_files_.unreadable() > 0) {
      progress_.warn(
          "{} shards of the previous backup's map could not be read; run `holdfast verify`",
          previous_files_.unreadable());
    }
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
  void copy_small(Item& item, repository::PackWriter& writer, Bytes& buffer);
  void copy_part(const Piece& piece, repository::PackWriter& writer, Bytes& buffer);
  bool copy_range(const Piece& piece, FileComparison::Range range, PageJudge& judge,
                  repository::PackWriter& writer, Bytes& buffer, Item::Part& part);
  void check_sample(const Item& item) const;
  void finish(const Piece& piece, Item::Part part, repository::PackWriter& writer);
  void complete(Item& item, repository::PackWriter& writer) const;
  void pass_on_finished(std::unique_lock<std::mutex>& lock);

  const repository::Repository& repository_;
  const CopyRequest& request_;
  base::Progress& progress_;
  Owners owners_;
  PreviousFiles previous_files_;  // the walk's own
  PageStore store_;

  std::mutex mutex_;  // guards all below
  std::condition_variable_any changed_;
  std::deque<std::unique_ptr<Item>> queue_;  // in path order; finished ones leave at the front
  std::size_t next_ = 0;                     // index in queue_ of the first with parts to take
  std::size_t queued_runs_ = 0;
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
        if (stop.stop_requested()) {
          base::stop_if_interrupted();  // which says why
          base::fail(base::Code::interrupted, "stopped");
        }
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
                 found.inode, found.birth, {},         {}};
  item->source.path = request_.data_directory / found.path;
  item->source.name = found.path;
  if (const auto relation = postgres::relation_file(found.path)) {
    item->source.check_pages = request_.checksums;
    item->source.first_block = relation->segment * request_.segment_blocks;
  }
  auto previous = request_.compare.baseline != nullptr ? previous_files_.find(found.path)
                                                       : std::optional<FileEntry>();
  item->shard = previous_files_.shard();
  item->comparison.emplace(request_.compare, request_.segment_blocks, item->entry,
                           std::move(previous));
  const std::size_t parts = std::max<std::size_t>(1, (found.size + part_bytes - 1) / part_bytes);
  item->parts.resize(parts);
  item->damage.path = found.path;
  const std::size_t runs = item->previous_runs();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] {
    return queue_.empty() ||
           (queue_.size() < queue_limit && queued_runs_ + runs < queue_runs_limit);
  });
  queue_.push_back(std::move(item));
  queued_runs_ += runs;
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
                                {.backup = request_.backup,
                                 .previous = previous_id(request_.compare),
                                 .stamp = request_.stamp});
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
  Item& item = *piece.item;
  if (item.comparison->is_unchanged()) {
    const std::uint64_t begin = piece.part * part_bytes;
    const std::uint64_t end = std::min(begin + part_bytes, item.entry.size);
    if (piece.part == 0) check_sample(item);
    Item::Part part;
    part.pages.runs = repository::part_of(item.comparison->previous()->runs, begin / page_bytes,
                                          repository::page_count(end - begin));
    part.size = end - begin;
    progress_.add(part.size);
    return finish(piece, std::move(part), writer);
  }
  open(item);
  if (item.vanished) {
    finish(piece, {}, writer);
  } else if (PageStore::may_be_known(item.entry.size, *item.comparison)) {
    copy_small(item, writer, buffer);
  } else {
    copy_part(piece, writer, buffer);
  }
}

/// A list of changes that misses some would corrupt backups without a sign. So now and then a page
/// that is said to be unchanged is looked at: its LSN must be an old one.
void Copier::check_sample(const Item& item) const {
  const std::uint64_t chance =
      repository_.page_hash().hash64(base::view(item.entry.path)) + request_.stamp;
  if (chance % samples_one_in != 0 || item.entry.size < page_bytes) return;
  const auto file = base::open_if_exists(item.source.path, O_RDONLY);
  if (!file) return;
  Bytes page(page_bytes);
  const std::uint64_t number = chance / samples_one_in % (item.entry.size / page_bytes);
  if (base::read_at(*file, page, number * page_bytes, item.source.path) != page_bytes) return;
  const postgres::Lsn lsn = postgres::page_lsn(page);
  const postgres::Lsn since = request_.compare.baseline->backup.start;
  if (lsn >= since && lsn < postgres::Lsn{request_.stamp}) throw WrongList(item.entry.path, number);
}

/// A small file that the previous backup did not have. Equal ones are stored once.
void Copier::copy_small(Item& item, repository::PackWriter& writer, Bytes& buffer) {
  buffer.resize(item.entry.size);
  Item::Part part;
  buffer.resize(read_pages(*item.file, item.source, 0, buffer, part.damage));
  part.size = buffer.size();
  writer.begin_file({item.entry.path, buffer.size(), item.entry.mode, item.entry.owner});
  part.pages = store_.store_file(buffer, *item.comparison, writer);
  progress_.add(item.entry.size);
  finish({&item, 0}, std::move(part), writer);
}

void Copier::copy_part(const Piece& piece, repository::PackWriter& writer, Bytes& buffer) {
  Item& item = *piece.item;
  const std::uint64_t begin = piece.part * part_bytes;
  const std::uint64_t end = std::min(begin + part_bytes, item.entry.size);
  const std::uint64_t end_page = repository::page_count(end);
  writer.begin_file({item.entry.path, item.entry.size, item.entry.mode, item.entry.owner});
  Item::Part part;
  PageJudge judge = store_.judge(*item.comparison, begin / page_bytes);
  const auto keep = [&](std::uint64_t first, std::uint64_t last) {
    if (first == last) return;
    for (const Run& run :
         repository::part_of(item.comparison->previous()->runs, first, last - first)) {
      repository::append_run(part.pages.runs, run);
    }
  };
  std::uint64_t next = begin / page_bytes;
  part.size = end - begin;
  for (const FileComparison::Range& range : item.comparison->to_read(next, end_page)) {
    keep(next, range.first);
    next = range.end;
    if (copy_range(piece, range, judge, writer, buffer, part)) continue;
    next = end_page;  // it was truncated
    break;
  }
  keep(next, end_page);
  progress_.add(end - begin);
  finish(piece, std::move(part), writer);
}

/// False if the file ended before the range did; then the part has the size that was there.
bool Copier::copy_range(const Piece& piece, FileComparison::Range range, PageJudge& judge,
                        repository::PackWriter& writer, Bytes& buffer, Item::Part& part) {
  const Item& item = *piece.item;
  std::uint64_t at = range.first * page_bytes;
  const std::uint64_t end = std::min(range.end * page_bytes, item.entry.size);
  while (at < end) {
    buffer.resize(std::min<std::uint64_t>(read_bytes, end - at));
    const std::size_t size = read_pages(*item.file, item.source, at, buffer, part.damage);
    store_.store(base::View(buffer).first(size), at / page_bytes, *item.comparison, judge, writer,
                 part.pages);
    at += size;
    if (size < buffer.size()) {
      part.size = at - piece.part * part_bytes;
      return false;
    }
  }
  return true;
}

void Copier::finish(const Piece& piece, Item::Part part, repository::PackWriter& writer) {
  Item& item = *piece.item;
  std::unique_lock lock(mutex_);
  item.parts[piece.part] = std::move(part);
  // The last one to come completes the file; until it has said so nobody else touches it.
  if (item.parts_done + 1 < item.parts.size()) {
    ++item.parts_done;
    return;
  }
  lock.unlock();
  complete(item, writer);
  lock.lock();
  ++item.parts_done;
  if (queue_.front().get() == &item) pass_on_finished(lock);
}

/// The size that a file had as a whole, its runs and hashes: up to the first part that came out
/// short.
void Copier::complete(Item& item, repository::PackWriter& writer) const {
  item.file.reset();
  FileEntry& entry = item.entry;
  std::uint64_t size = 0;
  bool stored = false;
  for (Item::Part& part : item.parts) {
    part.pages.add_to(entry);
    stored = stored || part.pages.any_new;
    item.damage.pages += part.damage.pages;
    item.damage.first.insert(item.damage.first.end(), part.damage.first.begin(),
                             part.damage.first.end());
    const std::uint64_t expected = std::min(size + part_bytes, entry.size);
    size += part.size;
    if (size < expected) break;
  }
  item.parts = std::vector<Item::Part>(item.parts.size());
  entry.size = size;
  const FileEntry* previous = item.comparison->previous();
  item.unchanged = previous != nullptr && *previous == entry;
  // What no pack holds anew is described all the same, so that maps can be rebuilt from packs.
  if (!stored && !item.unchanged && !item.vanished) {
    writer.note({{entry.path, entry.size, entry.mode, entry.owner}, entry.runs});
  }
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
    queued_runs_ -= finished.back()->previous_runs();
    --next_;
  }
  changed_.notify_all();
  lock.unlock();
  for (const std::unique_ptr<Item>& item : finished) {
    if (item->vanished) continue;
    if (item->damage.pages > 0) {
      std::ranges::sort(item->damage.first);
      result_.damaged.push_back(std::move(item->damage));
    }
    shards_.add(std::move(item->entry), item->shard, item->unchanged);
  }
}

}  // namespace

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

WrongList::WrongList(const std::string& path, std::uint64_t page)
    : Error(
          base::Code::internal,
          fmt::format("page {} of \"{}\" has changed, but is not among the changes", page, path)) {}

CopyResult copy_files(const repository::Repository& repository, const repository::Backups& backups,
                      const CopyRequest& request, base::Progress& progress) {
  return Copier(repository, backups, request, progress).run();
}

}  // namespace holdfast::operations
