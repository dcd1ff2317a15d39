#pragma once

// What an instant restore remembers across its own death and that of the machine.
//
// Files of the backup are completed locally, page by page: a sparse file, whose pages are either
// there or still in the backup. Which is which cannot be told from the file: a hole reads as zeros,
// and after a power cut any page may be anything. So a page counts as local only if the journal
// says so, and the journal says so only after the page is durable. It also remembers files of the
// backup that are gone, and those that were cut short, so that nothing of the backup comes back.
//
// One file of records, appended and never changed, each with a digest; where they end is the first
// that is not whole, which a power cut leaves. Opening it writes what it says anew.

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"

namespace holdfast::mount {

/// Pages [first, first + count) of a file.
struct PageRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

class Journal {
 public:
  struct FileState {
    /// Bytes from here on are not those of the backup: the file was cut to this size once.
    std::optional<std::uint64_t> cut;
    bool cut_is_done = true;  ///< if not, the file itself may still have its old size
    std::vector<PageRange> local;
  };
  struct State {
    std::set<std::string> gone;  ///< files that the backup has and that are no more
    std::map<std::string, FileState> files;
  };

  /// Reads the journal at `path`, if there is one, and goes on with it.
  explicit Journal(base::fs::path path);

  /// What it said when it was opened.
  const State& opened_with() const { return state_; }
  void forget_opened() { state_ = {}; }

  // Records; durable after the next sync().
  void gone(const std::string& path);
  /// Recorded before the file is cut, and again (`done`) when that is durable.
  void cut(const std::string& path, std::uint64_t size, bool done);
  void local(const std::string& path, const std::vector<PageRange>& ranges);
  /// Makes durable what was recorded before. Several who call it at once share the work. Once it
  /// has failed it fails for ever: what the kernel dropped cannot be known (fsync says it once).
  void sync();

 private:
  void append(base::View record);

  base::fs::path path_;
  State state_;
  base::Fd file_;
  std::mutex write_mutex_;
  std::uint64_t written_ = 0;  ///< bytes, and so the end of the last whole record
  std::mutex sync_mutex_;
  std::uint64_t synced_ = 0;
  bool failed_ = false;
};

}  // namespace holdfast::mount
