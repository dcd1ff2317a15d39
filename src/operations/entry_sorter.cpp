#include "operations/entry_sorter.h"

#include <algorithm>
#include <cerrno>
#include <queue>

#include "base/error.h"

namespace holdfast::operations {

namespace {

using repository::FileEntry;
using repository::Shard;

/// So many are read back at a time from each sorted row.
constexpr std::size_t chunk_weight = 4096;

std::size_t weight_of(const FileEntry& entry) {
  return 1 + entry.runs.size() + entry.hashes.size() / 2;
}

void sort(std::vector<FileEntry>& entries) {
  std::ranges::sort(entries, repository::comes_before, &FileEntry::path);
}

[[noreturn]] void fail_file(std::string_view what) {
  base::fail_errno(fmt::format("{} a temporary file", what), errno);
}

void write_part(std::FILE* file, base::View bytes) {
  const std::uint64_t size = bytes.size();
  if (std::fwrite(&size, sizeof size, 1, file) != 1 ||
      std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) {
    fail_file("write");
  }
}

base::Bytes read_part(std::FILE* file) {
  std::uint64_t size = 0;
  if (std::fread(&size, sizeof size, 1, file) != 1) fail_file("read");
  base::Bytes bytes(size);
  if (std::fread(bytes.data(), 1, bytes.size(), file) != bytes.size()) fail_file("read");
  return bytes;
}

}  // namespace

/// Reads one sorted row back, in pieces.
class EntrySorter::Row {
 public:
  Row(std::FILE* file, Span span) : file_(file), span_(span) { fill(); }
  explicit Row(std::vector<FileEntry> entries) : entries_(std::move(entries)) {}

  bool over() const { return next_ == entries_.size(); }
  const FileEntry& front() const { return entries_[next_]; }
  FileEntry take() {
    FileEntry entry = std::move(entries_[next_++]);
    if (over()) fill();
    return entry;
  }

 private:
  void fill() {
    if (span_.begin == span_.end) return;
    if (::fseeko(file_, static_cast<off_t>(span_.begin), SEEK_SET) != 0) fail_file("read");
    const base::Bytes packs = read_part(file_);
    const base::Bytes files = read_part(file_);
    span_.begin += 2 * sizeof(std::uint64_t) + packs.size() + files.size();
    entries_ = repository::decode_shard(packs, files).files;
    next_ = 0;
  }

  std::FILE* file_ = nullptr;
  Span span_{0, 0};
  std::vector<FileEntry> entries_;
  std::size_t next_ = 0;
};

void EntrySorter::add(FileEntry entry) {
  weight_ += weight_of(entry);
  entries_.push_back(std::move(entry));
  if (weight_ >= limit_) lay_down();
}

void EntrySorter::lay_down() {
  if (!file_) {
    file_.reset(std::tmpfile());
    if (!file_) fail_file("make");
  }
  sort(entries_);
  const std::uint64_t begin = rows_.empty() ? 0 : rows_.back().end;
  Shard chunk;
  std::size_t weight = 0;
  const auto write = [&] {
    const repository::EncodedShard encoded = repository::encode(chunk);
    write_part(file_.get(), encoded.packs);
    write_part(file_.get(), encoded.files);
    chunk.files.clear();
    weight = 0;
  };
  for (FileEntry& entry : entries_) {
    weight += weight_of(entry);
    chunk.files.push_back(std::move(entry));
    if (weight >= chunk_weight) write();
  }
  if (!chunk.files.empty()) write();
  if (std::fflush(file_.get()) != 0) fail_file("write");
  rows_.push_back({begin, static_cast<std::uint64_t>(::ftello(file_.get()))});
  entries_.clear();
  weight_ = 0;
}

void EntrySorter::drain(const std::function<void(FileEntry)>& take) {
  sort(entries_);
  std::vector<Row> rows;
  rows.reserve(rows_.size() + 1);
  for (const Span& span : rows_) rows.emplace_back(file_.get(), span);
  rows.emplace_back(std::move(entries_));
  const auto later = [](const Row* a, const Row* b) {
    return repository::comes_before(b->front().path, a->front().path);
  };
  std::priority_queue<Row*, std::vector<Row*>, decltype(later)> queue(later);
  for (Row& row : rows) {
    if (!row.over()) queue.push(&row);
  }
  std::string last;
  while (!queue.empty()) {
    Row* row = queue.top();
    queue.pop();
    FileEntry entry = row->take();
    if (!last.empty() && !repository::comes_before(last, entry.path)) {
      base::fail(base::Code::corrupt, "the file \"{}\" came twice", entry.path);
    }
    last = entry.path;
    take(std::move(entry));
    if (!row->over()) queue.push(row);
  }
}

}  // namespace holdfast::operations
