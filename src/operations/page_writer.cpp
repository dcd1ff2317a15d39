#include "operations/page_writer.h"

#include <fcntl.h>

#include <cerrno>

namespace holdfast::operations {

namespace {

constexpr std::size_t least_direct_bytes = 128 << 10;
constexpr std::uintptr_t direct_alignment = 4096;

bool can_be_direct(std::uint64_t offset, base::View bytes) {
  return bytes.size() >= least_direct_bytes && bytes.size() % direct_alignment == 0 &&
         offset % direct_alignment == 0 &&
         reinterpret_cast<std::uintptr_t>(bytes.data()) % direct_alignment == 0;
}

}  // namespace

void PageWriter::open(const base::fs::path& path, bool direct) {
  if (file_ && path == path_ && direct_ == direct) return;
  path_ = path;
  direct_ = direct;
  if (direct) {
    file_ = base::Fd(::open(path.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
    if (file_) return;
    // The file system cannot do it (tmpfs), or something is wrong that the next line will report.
  }
  file_ = base::open_file(path, O_WRONLY);
}

void PageWriter::write(const base::fs::path& path, std::uint64_t offset, base::View bytes) {
  const bool direct = can_be_direct(offset, bytes);
  // A file that is open for direct writing takes small pieces only through another descriptor.
  open(path, direct);
  base::write_at(file_, bytes, offset, path);
}

}  // namespace holdfast::operations
