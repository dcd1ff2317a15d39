#include "operations/copy_stream.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "base/workers.h"
#include "operations/entry_sorter.h"
#include "operations/shard_builder.h"
#include "operations/store_pages.h"
#include "postgres/backup_label.h"
#include "postgres/incremental_file.h"
#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using base::Bytes;
using postgres::Lsn;
using postgres::TarMember;
using repository::FileEntry;
using repository::frame_bytes;
using repository::page_bytes;

/// Workers take pieces of this size: a part of a large file, or several small ones.
constexpr std::size_t piece_bytes = 1 << 20;
static_assert(piece_bytes % page_bytes == 0);
constexpr std::size_t piece_parts = 1000;
constexpr std::chrono::seconds check_interval(5);
/// A damaged file is described by the first few pages.
constexpr std::size_t first_pages_kept = 16;
/// backup_label, tablespace_map, pg_control: larger ones are none.
constexpr std::uint64_t kept_file_limit = 16 << 20;

constexpr std::size_t piece_pages = piece_bytes / page_bytes;

/// A file of which only what changed is arriving.
struct Changes {
  postgres::IncrementalHeader sent;
  std::uint64_t zero_from = 0;  ///< what is not sent is zeros from this page on, and else as before
};

/// A file that is arriving.
struct Item {
  FileEntry entry;
  std::optional<Changes> changes;
  /// Of a file that came whole though there is a list of changes: what that says.
  std::optional<std::vector<std::uint32_t>> listed;
  RelationSegment segment;  ///< if listed
  bool check_pages = false;
  std::uint32_t first_block = 0;  ///< number of its first page in the relation
  std::optional<FileComparison> comparison;
  std::vector<StoredPages> parts;
  std::size_t parts_left = 0;
  /// Pages whose checksums fail, with their LSNs: which of them count is known at the end.
  std::vector<std::pair<std::uint64_t, Lsn>> failed;
};

struct Part {
  std::shared_ptr<Item> item;
  std::size_t index = 0;  ///< of the parts of the item
  std::size_t at = 0;     ///< in the bytes of the piece
  std::size_t size = 0;
};

struct Piece {
  Bytes bytes;
  std::vector<Part> parts;
};

/// Pieces between the thread that receives and those that store.
class Queue {
 public:
  explicit Queue(std::size_t limit) : limit_(limit) {}

  void push(Piece piece, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return pieces_.size() < limit_; });
    pieces_.push_back(std::move(piece));
    changed_.notify_all();
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  /// nullopt at the end.
  std::optional<Piece> take(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return !pieces_.empty() || ended_; });
    if (pieces_.empty() || stop.stop_requested()) return std::nullopt;
    Piece piece = std::move(pieces_.front());
    pieces_.pop_front();
    changed_.notify_all();
    return piece;
  }

 private:
  const std::size_t limit_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Piece> pieces_;
  bool ended_ = false;
};

/// Cuts what arrives into pieces. Belongs to the thread that receives.
class Cutter : public postgres::TarVisitor {
 public:
  Cutter(const CopyStreamRequest& request, const repository::Backups& backups,
         base::Progress& progress, Queue& queue, const std::stop_token& stop)
      : request_(request),
        previous_(backups, previous_shards(request.compare)),
        progress_(progress),
        queue_(queue),
        stop_(stop) {}

  std::vector<repository::DirectoryEntry> directories;
  std::map<std::string, Bytes, std::less<>> kept = {
      {"backup_label", {}}, {"tablespace_map", {}}, {"global/pg_control", {}}};
  SentBlocks sent_blocks;

  void directory(const TarMember& member) override {
    directories.push_back({member.path, member.mode, member.owner});
  }

  void begin_file(const TarMember& member) override {
    keep_ = nullptr;
    item_.reset();
    reader_.reset();
    const auto whole =
        request_.increment != nullptr ? postgres::stands_for(member.path) : std::nullopt;
    if (whole) {
      member_ = member;
      member_.path = *whole;
      reader_.emplace(member.size, request_.segment_blocks);
    } else if (const auto found = kept.find(member.path); found != kept.end()) {
      if (member.size > kept_file_limit) {
        base::fail(base::Code::corrupt, "\"{}\" has {} bytes", member.path, member.size);
      }
      keep_ = &found->second;
    } else if (!postgres::is_left_out(member.path)) {
      begin_item(member);
    }
  }

  void content(base::View bytes) override {
    progress_.add(bytes.size());
    if (keep_ != nullptr) keep_->insert(keep_->end(), bytes.begin(), bytes.end());
    if (reader_ && !item_) {
      bytes = reader_->take(bytes);
      if (reader_->has_header()) begin_changes(reader_->header());
    }
    if (!item_) return;
    while (!bytes.empty()) {
      if (piece_.bytes.size() == piece_bytes) {
        pass_on();
        begin_part();
      }
      const std::size_t taken = std::min(piece_bytes - piece_.bytes.size(), bytes.size());
      const base::View part = bytes.first(taken);
      piece_.bytes.insert(piece_.bytes.end(), part.begin(), part.end());
      piece_.parts.back().size += taken;
      bytes = bytes.subspan(taken);
    }
  }

  void end_file() override {
    keep_ = nullptr;
    item_.reset();
  }

  void finish() {
    if (!piece_.parts.empty()) pass_on();
    queue_.end();
  }

 private:
  void begin_item(const TarMember& member) {
    item_ = std::make_shared<Item>();
    item_->entry = {member.path, member.size, member.mode, member.owner, 0, 0, {}, {}};
    auto previous = previous_.find(member.path);
    const auto relation = postgres::relation_file(member.path);
    const bool is_main = relation && relation->fork == postgres::RelationFile::Fork::main;
    if (request_.increment != nullptr && is_main && previous) {
      item_->segment = segment_of(*relation);
      item_->listed = request_.increment->changes().pages_of(item_->segment);
    }
    item_->comparison.emplace(request_.compare, request_.segment_blocks, item_->entry,
                              std::move(previous));
    expect(member.size);
  }

  /// The previous backup has the rest of it, or there is none.
  void begin_changes(const postgres::IncrementalHeader& sent) {
    auto previous = previous_.find(member_.path);
    if (!previous || !request_.increment->asks_for_changes(*previous)) {
      base::fail(base::Code::corrupt, "the server sent only a part of \"{}\"", member_.path);
    }
    const RelationSegment segment = segment_of(postgres::relation_file(member_.path).value());
    if (const auto page = missing_page(request_.increment->changes(), segment, sent)) {
      throw WrongList(
          base::Error(base::Code::internal,
                      fmt::format("the server did not send page {} of \"{}\", which has changed",
                                  *page, member_.path)));
    }
    sent_blocks.add(segment, sent);
    item_ = std::make_shared<Item>();
    const std::uint64_t size = std::uint64_t{sent.length()} * page_bytes;
    item_->entry = {member_.path, size, member_.mode, member_.owner, 0, 0, {}, {}};
    item_->changes = {sent, zeros_from(segment, sent, *previous)};
    item_->comparison.emplace(FileComparison::of_changes(*std::move(previous)));
    progress_.add(size - sent.blocks.size() * page_bytes);
    expect(sent.blocks.size() * page_bytes);
  }

  RelationSegment segment_of(const postgres::RelationFile& relation) const {
    return {{relation.tablespace, relation.database, relation.relation},
            relation.segment,
            request_.segment_blocks};
  }

  /// Where a file was cut off since and grew again, what it had there before is gone. Its new pages
  /// are sent if anything was written to them. The server's own length forgets that (up to 18).
  std::uint64_t zeros_from(const RelationSegment& segment, const postgres::IncrementalHeader& sent,
                           const FileEntry& previous) const {
    std::uint64_t from =
        std::min<std::uint64_t>(sent.kept_length, repository::page_count(previous.size));
    const std::uint64_t begin = std::uint64_t{segment.number} * segment.blocks;
    if (const auto limit = request_.increment->changes().limit_of(segment.relation)) {
      from = std::min(from, *limit > begin ? *limit - begin : 0);
    }
    return from;
  }

  /// Bytes that will come of the item.
  void expect(std::uint64_t size) {
    if (const auto relation = postgres::relation_file(item_->entry.path)) {
      item_->check_pages = request_.checksums;
      item_->first_block = relation->segment * request_.segment_blocks;
    }
    const bool small = size <= frame_bytes;
    // A small file is in one piece, parts of a large one begin at pages.
    const bool fits =
        small && piece_.bytes.size() + size <= piece_bytes && piece_.parts.size() < piece_parts;
    if (!fits && !piece_.parts.empty()) pass_on();
    const std::uint64_t parts = (size + piece_bytes - 1) / piece_bytes;
    item_->parts.resize(small ? 1 : static_cast<std::size_t>(parts));
    item_->parts_left = item_->parts.size();
    next_part_ = 0;
    begin_part();
  }

  void begin_part() { piece_.parts.push_back({item_, next_part_++, piece_.bytes.size(), 0}); }

  void pass_on() {
    queue_.push(std::move(piece_), stop_);
    piece_ = {};
    piece_.bytes.reserve(piece_bytes);
  }

  const CopyStreamRequest& request_;
  PreviousLookup previous_;
  base::Progress& progress_;
  Queue& queue_;
  const std::stop_token& stop_;
  Bytes* keep_ = nullptr;
  std::optional<postgres::IncrementalReader> reader_;  ///< of an incremental file
  TarMember member_;                                   ///< the file that it stands for
  std::shared_ptr<Item> item_;
  std::size_t next_part_ = 0;
  Piece piece_;
};

/// Goes through runs page by page.
class RunReader {
 public:
  RunReader(const std::vector<repository::Run>& runs, std::uint64_t first) : runs_(runs) {
    while (at_ < runs_.size() && first >= runs_[at_].pages) first -= runs_[at_++].pages;
    page_ = first;
  }
  /// The next page, as a run of its own. There must be one.
  repository::Run next() {
    if (page_ == runs_[at_].pages) {
      page_ = 0;
      ++at_;
    }
    const repository::Run& run = runs_[at_];
    const auto page = static_cast<std::uint32_t>(page_++);
    if (!run.pack) return {1, {}, {}};
    return {1, run.pack, {run.slot.value + page}};
  }

 private:
  const std::vector<repository::Run>& runs_;
  std::size_t at_ = 0;
  std::uint64_t page_ = 0;  ///< of that run
};

/// The server rewrites pg_control in place and reads it like any file (pitfall B13).
postgres::ControlFile parsed_control(base::View bytes) {
  try {
    return postgres::parse_control_file(bytes);
  } catch (const base::Error& error) {
    throw error.with_context("could not use the pg_control that the server sent")
        .with_hint("if it was caught while it was written, running it again helps");
  }
}

class StreamCopier {
 public:
  StreamCopier(const repository::Repository& repository, const repository::Backups& backups,
               postgres::BaseBackup& stream, const CopyStreamRequest& request,
               base::Progress& progress)
      : repository_(repository),
        backups_(backups),
        stream_(stream),
        request_(request),
        progress_(progress),
        store_(repository, backups.place(), request.compare),
        queue_(request.workers + 2) {}

  CopiedStream run() {
    progress_.begin("backing up", stream_.begin().bytes);
    base::run_workers(request_.workers + 1, [this](unsigned index, const std::stop_token& stop) {
      if (index == 0) {
        receive(stop);
      } else {
        store(stop);
      }
    });
    write_shards();
    judge_damage();
    return std::move(result_);
  }

 private:
  void receive(const std::stop_token& stop);
  void add_tablespace_directories(std::vector<repository::DirectoryEntry>& directories) const;
  void store(const std::stop_token& stop);
  void store_part(const Piece& piece, const Part& part, repository::PackWriter& writer);
  void store_changes(Item& item, const Part& part, base::View bytes, repository::PackWriter& writer,
                     StoredPages& stored);
  void check_list(const Item& item, base::View bytes, std::uint64_t first_page,
                  const StoredPages& stored);
  void note_cut(const Item& item, std::uint64_t page);
  void write_shards();
  void check_pages(Item& item, base::View bytes, std::uint64_t first_page);
  void finish(Item& item, std::size_t part, StoredPages stored, repository::PackWriter& writer);
  void judge_damage();
  bool is_emptied(const repository::PackId& pack) const {
    return request_.compare.emptied != nullptr && request_.compare.emptied->contains(pack);
  }

  const repository::Repository& repository_;
  const repository::Backups& backups_;
  postgres::BaseBackup& stream_;
  const CopyStreamRequest& request_;
  base::Progress& progress_;
  PageStore store_;
  Queue queue_;

  std::mutex mutex_;  // guards all below
  EntrySorter sorter_;
  std::map<std::string, std::vector<std::pair<std::uint64_t, Lsn>>> failed_;
  CopiedStream result_;
};

void StreamCopier::receive(const std::stop_token& stop) {
  Cutter cutter(request_, backups_, progress_, queue_, stop);
  auto checked = std::chrono::steady_clock::now();
  const postgres::BackupEnd end = stream_.receive(cutter, [&] {
    if (stop.stop_requested()) {
      base::stop_if_interrupted();  // which says why
      base::fail(base::Code::interrupted, "stopped");
    }
    const auto now = std::chrono::steady_clock::now();
    if (now - checked < check_interval) return;
    request_.check();
    checked = now;
  });
  cutter.finish();
  const std::lock_guard lock(mutex_);
  result_.end = end;
  result_.sent = std::move(cutter.sent_blocks);
  result_.backup_label = postgres::whole_backup_label(base::text(cutter.kept.at("backup_label")));
  result_.tablespace_map = base::text(cutter.kept.at("tablespace_map"));
  result_.control = std::move(cutter.kept.at("global/pg_control"));
  result_.files.directories = std::move(cutter.directories);
  add_tablespace_directories(result_.files.directories);
  std::ranges::sort(result_.files.directories, repository::comes_before,
                    &repository::DirectoryEntry::path);
}

/// The archive of a tablespace begins below the directory that pg_tblspc/OID leads to. The server
/// makes that directory just like the one in it.
void StreamCopier::add_tablespace_directories(
    std::vector<repository::DirectoryEntry>& directories) const {
  for (const postgres::Tablespace& tablespace : stream_.begin().tablespaces) {
    const std::string path = fmt::format("pg_tblspc/{}", tablespace.oid);
    if (std::ranges::find(directories, path, &repository::DirectoryEntry::path) !=
        directories.end()) {
      continue;
    }
    const auto inner = std::ranges::find_if(directories, [&](const auto& each) {
      return each.path.starts_with(path + "/") || each.path == "pg_tblspc";
    });
    if (inner == directories.end()) continue;
    directories.push_back({path, inner->mode, inner->owner});
  }
}

void StreamCopier::store(const std::stop_token& stop) {
  repository::PackWriter writer(repository_.store(), backups_.place().directory(),
                                repository_.protection(), repository_.page_hash(),
                                {.backup = request_.backup,
                                 .previous = previous_id(request_.compare),
                                 .stamp = stream_.begin().start.value});
  while (const std::optional<Piece> piece = queue_.take(stop)) {
    for (const Part& part : piece->parts) store_part(*piece, part, writer);
  }
  if (stop.stop_requested()) return;
  writer.finish();
  const std::lock_guard lock(mutex_);
  auto& packs = result_.files.packs;
  packs.insert(packs.end(), writer.packs().begin(), writer.packs().end());
  result_.files.stored_bytes += writer.stored_bytes();
}

void StreamCopier::store_part(const Piece& piece, const Part& part,
                              repository::PackWriter& writer) {
  Item& item = *part.item;
  const base::View bytes = base::View(piece.bytes).subspan(part.at, part.size);
  const std::uint64_t first_page = part.index * (piece_bytes / page_bytes);
  if (item.check_pages && !item.changes) check_pages(item, bytes, first_page);
  writer.begin_file({item.entry.path, item.entry.size, item.entry.mode, item.entry.owner});
  StoredPages stored;
  if (item.changes) {
    store_changes(item, part, bytes, writer, stored);
  } else if (item.parts.size() == 1) {
    stored = store_.store_file(bytes, *item.comparison, writer);
  } else {
    PageJudge judge = store_.judge(*item.comparison, first_page);
    store_.store(bytes, first_page, *item.comparison, judge, writer, stored);
  }
  if (item.listed) check_list(item, bytes, first_page, stored);
  finish(item, part.index, std::move(stored), writer);
}

/// The blocks that came, each where it belongs, and between them what the previous backup has.
void StreamCopier::store_changes(Item& item, const Part& part, base::View bytes,
                                 repository::PackWriter& writer, StoredPages& stored) {
  const std::vector<std::uint32_t>& blocks = item.changes->sent.blocks;
  const std::size_t first = part.index * piece_pages;
  const std::size_t last = first + part.size / page_bytes;
  const auto keep = [&](std::uint64_t from, std::uint64_t to) {
    const std::uint64_t until = std::clamp(item.changes->zero_from, from, to);
    if (from < until) {
      for (const repository::Run& run :
           repository::part_of(item.comparison->previous()->runs, from, until - from)) {
        repository::append_run(stored.runs, run);
      }
    }
    if (until < to) repository::append_run(stored.runs, {to - until, {}, {}});
  };
  std::uint64_t next = part.index == 0 ? 0 : blocks[first];
  PageJudge judge = store_.judge(*item.comparison, next);
  for (std::size_t i = first; i < last; ++i) {
    const base::View page = bytes.subspan((i - first) * page_bytes, page_bytes);
    keep(next, blocks[i]);
    if (item.check_pages) check_pages(item, page, blocks[i]);
    store_.store(page, blocks[i], *item.comparison, judge, writer, stored);
    next = std::uint64_t{blocks[i]} + 1;
  }
  keep(next, last < blocks.size() ? blocks[last] : item.changes->sent.length());
}

/// A list of changes that misses some would corrupt backups without a sign. So what came whole must
/// be as the previous backup has it wherever the list says so.
void StreamCopier::check_list(const Item& item, base::View bytes, std::uint64_t first_page,
                              const StoredPages& stored) {
  const FileEntry& previous = *item.comparison->previous();
  const std::uint64_t had = repository::page_count(previous.size);
  if (previous.size % page_bytes != 0 || first_page >= had) return;
  const std::uint64_t pages = std::min<std::uint64_t>(bytes.size() / page_bytes, had - first_page);
  RunReader before(previous.runs, first_page);
  RunReader now(stored.runs, 0);
  for (std::uint64_t i = 0; i < pages; ++i) {
    const repository::Run old = before.next();
    const repository::Run found = now.next();
    if (old == found) continue;
    if (old.pack && is_emptied(*old.pack)) continue;
    const Lsn lsn = postgres::page_lsn(bytes.subspan(i * page_bytes, page_bytes));
    if (lsn >= stream_.begin().start || request_.increment->may_differ(lsn)) continue;
    if (std::ranges::binary_search(*item.listed, first_page + i)) continue;
    if (found.pack) throw WrongList(item.entry.path, first_page + i);
    note_cut(item, first_page + i);
  }
}

/// The server fills up with zeros what is cut off or dropped while it sends it. WAL tells, once all
/// of it is here.
void StreamCopier::note_cut(const Item& item, std::uint64_t page) {
  const auto number = static_cast<std::uint32_t>(page);
  const std::lock_guard lock(mutex_);
  for (CutMeanwhile& each : result_.cut) {
    if (each.path != item.entry.path) continue;
    each.page = std::min(each.page, number);
    return;
  }
  result_.cut.push_back({item.entry.path, item.segment, number});
}

/// A page that the server was just writing cannot be read again through a replication connection.
/// Its LSN tells which it is, at the end: see judge_damage.
void StreamCopier::check_pages(Item& item, base::View bytes, std::uint64_t first_page) {
  for (std::size_t at = 0; at + page_bytes <= bytes.size(); at += page_bytes) {
    const base::View page = bytes.subspan(at, page_bytes);
    const std::uint64_t number = first_page + at / page_bytes;
    if (postgres::page_is_sound(page, item.first_block + static_cast<std::uint32_t>(number))) {
      continue;
    }
    const std::lock_guard lock(mutex_);
    item.failed.emplace_back(number, postgres::page_lsn(page));
  }
}

void StreamCopier::finish(Item& item, std::size_t part, StoredPages stored,
                          repository::PackWriter& writer) {
  {
    const std::lock_guard lock(mutex_);
    item.parts[part] = std::move(stored);
    if (--item.parts_left > 0) return;
  }
  FileEntry& entry = item.entry;
  bool is_stored = false;
  for (const StoredPages& each : item.parts) {
    each.add_to(entry);
    is_stored = is_stored || each.any_new;
  }
  // What no pack holds anew is described all the same, so that maps can be rebuilt from packs.
  const FileEntry* previous = item.comparison->previous();
  if (!is_stored && (previous == nullptr || !(*previous == entry))) {
    writer.note({{entry.path, entry.size, entry.mode, entry.owner}, entry.runs});
  }
  const std::lock_guard lock(mutex_);
  if (!item.failed.empty()) failed_[entry.path] = std::move(item.failed);
  sorter_.add(std::move(entry));
}

void StreamCopier::write_shards() {
  const auto& previous = previous_shards(request_.compare);
  PreviousFiles files(backups_, previous);
  ShardBuilder shards(backups_, previous);
  sorter_.drain([&](FileEntry entry) {
    const auto before = files.find(entry.path);
    const bool unchanged = before && *before == entry;
    shards.add(std::move(entry), files.shard(), unchanged);
  });
  shards.finish();
  result_.files.shards = shards.shards();
  result_.files.kept_shards = shards.kept();
  for (const repository::ShardReference& shard : result_.files.shards) {
    result_.files.files += shard.files;
    result_.files.bytes += shard.bytes;
  }
}

/// The server read every page whose LSN is older than the backup again before it sent it, if its
/// checksum failed. So such a page is damaged. One with an LSN between the backup's start and its
/// stop was changed meanwhile and may have been caught half written: the WAL between the two holds
/// it in full. No page can have a later LSN (TRAPS BK7).
void StreamCopier::judge_damage() {
  const Lsn start = stream_.begin().start;
  const Lsn stop = std::max(result_.end.stop, parsed_control(result_.control).min_recovery_point);
  for (auto& [path, pages] : failed_) {
    std::erase_if(pages,
                  [&](const auto& page) { return page.second >= start && page.second <= stop; });
    if (pages.empty()) continue;
    std::ranges::sort(pages);
    DamagedFile damage{path, pages.size(), {}};
    for (const auto& [number, lsn] : pages) {
      if (damage.first.size() < first_pages_kept) damage.first.push_back(number);
    }
    result_.files.damaged.push_back(std::move(damage));
  }
  std::ranges::sort(result_.files.damaged, {}, &DamagedFile::path);
  if (result_.end.found_damage && result_.files.damaged.empty()) {
    base::fail(base::Code::corrupt,
               "PostgreSQL found pages with wrong checksums in what it sent; its log names them");
  }
}

}  // namespace

CopiedStream copy_stream(const repository::Repository& repository,
                         const repository::Backups& backups, postgres::BaseBackup& stream,
                         const CopyStreamRequest& request, base::Progress& progress) {
  try {
    return StreamCopier(repository, backups, stream, request, progress).run();
  } catch (const base::Error& error) {
    if (request.increment == nullptr || error.code() != base::Code::corrupt) throw;
    throw WrongList(error);
  }
}

}  // namespace holdfast::operations
