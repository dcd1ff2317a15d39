#pragma once

// Files that come in any order, put into path order.
//
// A base backup brings files in the order of its archives and of unsorted directories. Their
// entries are kept in memory up to a limit; then they are sorted and laid down in a temporary file,
// and merged at the end. So memory is bounded however many files there are.

#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "repository/page_map.h"

namespace holdfast::operations {

class EntrySorter {
 public:
  /// Some hundred bytes each: so many entries and runs are kept in memory.
  static constexpr std::size_t default_limit = 400000;
  explicit EntrySorter(std::size_t limit = default_limit) : limit_(limit) {}

  void add(repository::FileEntry entry);

  /// Hands over all that was added, in path order. Throws Error(corrupt) if a path was added twice.
  void drain(const std::function<void(repository::FileEntry)>& take);

 private:
  class Row;
  void lay_down();

  std::size_t limit_;
  std::size_t weight_ = 0;
  std::vector<repository::FileEntry> entries_;
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, CloseFile> file_;
  struct Span {
    std::uint64_t begin;
    std::uint64_t end;
  };
  std::vector<Span> rows_;  ///< sorted rows of entries in the file
};

}  // namespace holdfast::operations
