#include "operations/page_writer.h"

#include <fcntl.h>

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

/// A file that is open for direct writing takes no small pieces. Where the file system cannot do it
/// (tmpfs) everything goes through the page cache.
void PageWriter::make_direct(bool direct) {
  if (direct == direct_) return;
  const int flags = ::fcntl(file_.get(), F_GETFL);
  const int wanted = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
  if (flags >= 0 && ::fcntl(file_.get(), F_SETFL, wanted) == 0) direct_ = direct;
}

void PageWriter::write(const base::Beneath& directory, const std::string& path,
                       std::uint64_t offset, base::View bytes) {
  if (!file_ || &directory != directory_ || path != path_) {
    file_ = directory.open(path, O_WRONLY);
    directory_ = &directory;
    path_ = path;
    direct_ = false;
  }
  make_direct(can_be_direct(offset, bytes));
  base::write_at(file_, bytes, offset, directory.full(path));
}

}  // namespace holdfast::operations
