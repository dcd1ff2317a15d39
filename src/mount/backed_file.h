#pragma once

// A file of the backup that is being completed locally.
//
// Locally it is a sparse file that has the file's real size at once. Its pages are local one by
// one: brought from the backup when somebody reads them or the hydrator comes by, or written. A
// page that is not local is never read from the sparse file. When all are, the file is whole and
// the backup is not needed for it any more.
//
// The sparse file carries the sticky bit as long as its holes are pages of the backup
// (`unfinished_bit`): without the journal, and in any other hands, it can be told from a file.
//
// Failures of the repository and of the local file system are Errors; nothing is changed then that
// was not asked for.

#include <atomic>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "mount/journal.h"
#include "mount/page_source.h"

namespace holdfast::mount {

/// Means nothing to the kernel on a file that is not a directory.
constexpr mode_t unfinished_bit = S_ISVTX;

/// Safe for several threads.
class BackedFile {
 public:
  /// `file`: the sparse file, open for reading and writing, with the size that it was left with.
  /// `state`: what the journal says of it.
  BackedFile(std::shared_ptr<const repository::FileEntry> entry, base::fs::path local_path,
             base::Fd file, const Journal::FileState& state, PageSource& source, Journal& journal);

  const std::string& path() const { return entry_->path; }
  const base::fs::path& local_path() const { return local_path_; }
  int descriptor() const { return file_.get(); }
  /// All of it is local: it can be used without asking here. Never becomes false again.
  bool is_whole() const { return whole_.load(std::memory_order_acquire); }
  /// It is whole and durable: from now on an ordinary file, without the sticky bit. The bit's
  /// absence must be made durable before `now_ordinary()`.
  void take_mark_off();
  /// It was removed or replaced: who has it open may go on.
  void now_nameless() { name_is_durable_ = true; }
  void now_ordinary() { ordinary_.store(true, std::memory_order_release); }

  std::size_t read(base::MutableView into, std::uint64_t offset);
  void write(base::View bytes, std::uint64_t offset);
  void truncate(std::uint64_t size);
  void allocate(std::uint64_t offset, std::uint64_t length);
  /// Makes all that was written before durable, and that it is.
  void sync();

  /// Brings all that is not local yet.
  void make_whole();
  /// Pages [first, first + count) have some that are not local.
  bool lacks(std::uint64_t first, std::uint64_t count) const;
  /// The hydrator brings whole pages from `first` on; those that are local already stay.
  void fill(std::uint64_t first, base::View pages);
  /// Zero pages, which are in no pack.
  void fill_zero_runs();

  /// Which pages became local and were not recorded yet; the caller makes them durable and records
  /// that (Tree::checkpoint).
  std::vector<PageRange> take_unrecorded();
  /// They could not be made durable.
  void give_back(std::vector<PageRange> ranges);

 private:
  using Lock = std::unique_lock<std::shared_mutex>;
  std::uint64_t backed_pages() const;
  std::optional<std::uint64_t> first_missing(std::uint64_t first, std::uint64_t end) const;
  void bring(std::uint64_t page, std::uint64_t end);
  void bring_all(std::uint64_t first, std::uint64_t end);
  void fill_locked(std::uint64_t first, base::View pages);
  void zero_locked(std::uint64_t first, std::uint64_t count);
  void mark_local(std::uint64_t page);
  void see_whether_whole();
  std::size_t run_of(std::uint64_t page) const;
  std::uint32_t frames_ahead(std::uint64_t page);

  const std::shared_ptr<const repository::FileEntry> entry_;
  const base::fs::path local_path_;
  const base::Fd file_;
  PageSource& source_;
  Journal& journal_;
  std::vector<std::uint64_t> run_starts_;  ///< first page of each run
  std::atomic<bool> whole_{false};
  std::atomic<bool> ordinary_{false};
  std::atomic<bool> name_is_durable_{false};
  std::atomic<std::uint64_t> expected_page_{0};  ///< where a sequential reader goes on
  std::atomic<std::uint32_t> ahead_{0};

  mutable std::shared_mutex mutex_;
  std::uint64_t backed_bytes_ = 0;  ///< bytes before this one are local or the backup's
  std::vector<bool> local_;         ///< by page, below backed_bytes_
  std::uint64_t missing_ = 0;       ///< pages below backed_bytes_ that are not local
  std::vector<PageRange> unrecorded_;
};

}  // namespace holdfast::mount
