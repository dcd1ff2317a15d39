#pragma once

// Writing pages of many files, in the order in which packs bring them.

#include <cstdlib>
#include <memory>

#include "base/beneath.h"

namespace holdfast::operations {

/// Memory that the kernel can write from directly (O_DIRECT).
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size)
      : memory_(static_cast<std::uint8_t*>(std::aligned_alloc(4096, size))), size_(size) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  base::MutableView view() { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::uint8_t, Free> memory_;
  std::size_t size_;
};

/// Keeps the file that was written last open. Large pieces go past the page cache where the file
/// system can do that: copying them through it takes more processor time than all else in a
/// restore. Belongs to one thread.
class PageWriter {
 public:
  /// `bytes` should lie in an AlignedBuffer.
  void write(const base::Beneath& directory, const std::string& path, std::uint64_t offset,
             base::View bytes);

 private:
  void make_direct(bool direct);
  const base::Beneath* directory_ = nullptr;
  std::string path_;
  base::Fd file_;
  bool direct_ = false;
};

}  // namespace holdfast::operations
