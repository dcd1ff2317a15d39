#include "mount/backed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"

namespace holdfast::mount {

namespace {

using repository::page_bytes;
using repository::pages_per_frame;

/// As much as comes with one request.
constexpr std::uint32_t most_frames_ahead = 15;

void add_page(std::vector<PageRange>& ranges, std::uint64_t page) {
  if (!ranges.empty() && ranges.back().first + ranges.back().count == page) {
    ++ranges.back().count;
  } else {
    ranges.push_back({page, 1});
  }
}

}  // namespace

BackedFile::BackedFile(std::shared_ptr<const repository::FileEntry> entry,
                       base::fs::path local_path, base::Fd file, const Journal::FileState& state,
                       PageSource& source, Journal& journal)
    : entry_(std::move(entry)),
      local_path_(std::move(local_path)),
      file_(std::move(file)),
      source_(source),
      journal_(journal) {
  std::uint64_t page = 0;
  for (const repository::Run& run : entry_->runs) {
    run_starts_.push_back(page);
    page += run.pages;
  }
  backed_bytes_ = std::min(entry_->size, state.cut.value_or(entry_->size));
  if (state.cut && !state.cut_is_done) {
    // It died between saying so and doing so; nothing that was synced came after.
    if (::ftruncate(file_.get(), static_cast<off_t>(*state.cut)) != 0) {
      base::fail_errno(fmt::format("cut \"{}\"", local_path_.string()), errno);
    }
    base::sync_file(file_, local_path_);
    journal_.cut(entry_->path, *state.cut, true);
  }
  const std::uint64_t size = base::file_size(file_, local_path_);
  if (size < backed_bytes_ && ::ftruncate(file_.get(), static_cast<off_t>(backed_bytes_)) != 0) {
    base::fail_errno(fmt::format("set the size of \"{}\"", local_path_.string()), errno);
  }
  local_.resize(backed_pages());
  missing_ = local_.size();
  for (const PageRange& range : state.local) {
    for (std::uint64_t i = range.first; i < std::min(range.first + range.count, local_.size());
         ++i) {
      // What is behind the end that the file was found with cannot be there.
      if (i * page_bytes >= size || local_[i]) continue;
      local_[i] = true;
      --missing_;
    }
  }
  whole_ = missing_ == 0;
}

std::uint64_t BackedFile::backed_pages() const {
  return (backed_bytes_ + page_bytes - 1) / page_bytes;
}

std::optional<std::uint64_t> BackedFile::first_missing(std::uint64_t first,
                                                       std::uint64_t end) const {
  for (std::uint64_t page = first; page < std::min<std::uint64_t>(end, local_.size()); ++page) {
    if (!local_[page]) return page;
  }
  return std::nullopt;
}

bool BackedFile::lacks(std::uint64_t first, std::uint64_t count) const {
  const std::shared_lock lock(mutex_);
  return first_missing(first, first + count).has_value();
}

std::size_t BackedFile::read(base::MutableView into, std::uint64_t offset) {
  const std::uint64_t first = offset / page_bytes;
  const std::uint64_t end = (offset + into.size() + page_bytes - 1) / page_bytes;
  while (true) {
    std::optional<std::uint64_t> missing;
    {
      const std::shared_lock lock(mutex_);
      missing = first_missing(first, end);
      if (!missing) return base::read_at(file_, into, offset, local_path_);
    }
    bring(*missing, end);
  }
}

void BackedFile::write(base::View bytes, std::uint64_t offset) {
  const std::uint64_t stop = offset + bytes.size();
  const std::uint64_t first = offset / page_bytes;
  const std::uint64_t end = (stop + page_bytes - 1) / page_bytes;
  while (true) {
    std::optional<std::uint64_t> missing;
    {
      const Lock lock(mutex_);
      // A page that is written only in part needs its other part first.
      const std::uint64_t backed = std::min(backed_bytes_, end * page_bytes);
      if (offset % page_bytes != 0) missing = first_missing(first, first + 1);
      if (!missing && stop % page_bytes != 0 && stop < backed) {
        missing = first_missing(end - 1, end);
      }
      if (!missing) {
        base::write_at(file_, bytes, offset, local_path_);
        for (std::uint64_t page = first; page < end; ++page) mark_local(page);
        see_whether_whole();
        return;
      }
    }
    bring(*missing, *missing + 1);
  }
}

void BackedFile::truncate(std::uint64_t size) {
  while (true) {
    std::optional<std::uint64_t> missing;
    {
      const Lock lock(mutex_);
      const bool cuts = size < backed_bytes_ && !ordinary_;
      // What is cut off the last page must be zero if the file grows again.
      if (cuts && size % page_bytes != 0) {
        missing = first_missing(size / page_bytes, size / page_bytes + 1);
      }
      if (!missing) {
        if (cuts) {
          journal_.cut(entry_->path, size, false);
          journal_.sync();
        }
        if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) {
          base::fail_errno(fmt::format("set the size of \"{}\"", local_path_.string()), errno);
        }
        if (!cuts) return;
        base::sync_file(file_, local_path_);
        journal_.cut(entry_->path, size, true);
        backed_bytes_ = size;
        for (std::uint64_t page = backed_pages(); page < local_.size(); ++page) {
          if (!local_[page]) --missing_;
        }
        local_.resize(backed_pages());
        see_whether_whole();
        return;
      }
    }
    bring(*missing, *missing + 1);
  }
}

void BackedFile::allocate(std::uint64_t offset, std::uint64_t length) {
  const Lock lock(mutex_);
  if (::fallocate(file_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    base::fail_errno(fmt::format("allocate \"{}\"", local_path_.string()), errno);
  }
}

void BackedFile::sync() {
  std::vector<PageRange> ranges = take_unrecorded();
  try {
    base::sync_file(file_, local_path_);
    // It was made when it was first needed; who syncs it believes that it has always been there.
    if (!name_is_durable_) base::sync_directory(local_path_.parent_path());
    name_is_durable_ = true;
    journal_.local(entry_->path, ranges);
    journal_.sync();
  } catch (...) {
    give_back(std::move(ranges));
    throw;
  }
}

void BackedFile::make_whole() {
  while (!is_whole()) {
    std::optional<std::uint64_t> missing;
    std::uint64_t end = 0;
    {
      const std::shared_lock lock(mutex_);
      end = local_.size();
      missing = first_missing(0, end);
    }
    if (missing) bring(*missing, end);
  }
}

void BackedFile::take_mark_off() {
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0 ||
      ::fchmod(file_.get(), status.st_mode & 07777 & ~unfinished_bit) != 0) {
    base::fail_errno(fmt::format("set the mode of \"{}\"", local_path_.string()), errno);
  }
}

/// The run that page is in.
std::size_t BackedFile::run_of(std::uint64_t page) const {
  const auto behind = std::ranges::upper_bound(run_starts_, page);
  return static_cast<std::size_t>(behind - run_starts_.begin()) - 1;
}

/// A reader that goes on where the last one ended will want more.
std::uint32_t BackedFile::frames_ahead(std::uint64_t page) {
  if (page != expected_page_.load(std::memory_order_relaxed)) return ahead_ = 0;
  return ahead_ = std::min(most_frames_ahead, 2 * ahead_ + 1);
}

/// Brings page `page`, and what comes with it: the file's pages that stand in the same frame, and
/// others before `end`, which are zero with it.
void BackedFile::bring(std::uint64_t page, std::uint64_t end) {
  const std::size_t index = run_of(page);
  const repository::Run& run = entry_->runs[index];
  const std::uint64_t start = run_starts_[index];
  if (!run.pack) {
    const Lock lock(mutex_);
    zero_locked(page, std::min(end, start + run.pages) - page);
    see_whether_whole();
    return;
  }
  const auto slot_of = [&](std::uint64_t each) {
    return repository::Slot{run.slot.value + static_cast<std::uint32_t>(each - start)};
  };
  const std::uint32_t frame = slot_of(page).frame();
  const std::uint32_t last_frame = slot_of(start + run.pages - 1).frame();
  const std::uint32_t ahead = std::min(frames_ahead(page), last_frame - frame);
  const auto bytes = source_.frame(*run.pack, frame, ahead);
  // From the first page of the run in this frame to the last one.
  const std::uint64_t from = frame == run.slot.frame() ? start : page - slot_of(page).page();
  const std::uint64_t to =
      std::min(start + run.pages, page + (pages_per_frame - slot_of(page).page()));
  expected_page_ = to;
  const std::size_t at = slot_of(from).page() * page_bytes;
  const std::size_t length = (to - from) * page_bytes;
  if (at + length > bytes->size()) {
    base::fail(base::Code::corrupt, "pack {} does not hold a page that a map says it holds",
               repository::to_string(*run.pack));
  }
  fill(from, base::View(*bytes).subspan(at, length));
}

void BackedFile::fill(std::uint64_t first, base::View pages) {
  const Lock lock(mutex_);
  fill_locked(first, pages);
  see_whether_whole();
}

void BackedFile::fill_locked(std::uint64_t first, base::View pages) {
  const std::uint64_t end =
      std::min<std::uint64_t>(first + pages.size() / page_bytes, local_.size());
  for (std::uint64_t page = first; page < end;) {
    if (local_[page]) {
      ++page;
      continue;
    }
    std::uint64_t stop = page + 1;
    while (stop < end && !local_[stop]) ++stop;
    const std::uint64_t length = std::min(stop * page_bytes, backed_bytes_) - page * page_bytes;
    base::write_at(file_, pages.subspan((page - first) * page_bytes, length), page * page_bytes,
                   local_path_);
    for (; page < stop; ++page) mark_local(page);
  }
}

/// A hole would do, if it were sure that there is one: a page that was written but not synced
/// before a power cut may stand there.
void BackedFile::zero_locked(std::uint64_t first, std::uint64_t count) {
  const std::uint64_t end = std::min<std::uint64_t>(first + count, local_.size());
  for (std::uint64_t page = first; page < end; ++page) {
    if (local_[page]) continue;
    const std::uint64_t at = page * page_bytes;
    const std::uint64_t length = std::min<std::uint64_t>(page_bytes, backed_bytes_ - at);
    if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                    static_cast<off_t>(length)) != 0) {
      const base::Bytes zeros(length);
      base::write_at(file_, zeros, at, local_path_);
    }
    mark_local(page);
  }
}

void BackedFile::fill_zero_runs() {
  const Lock lock(mutex_);
  for (std::size_t i = 0; i < entry_->runs.size(); ++i) {
    if (!entry_->runs[i].pack) zero_locked(run_starts_[i], entry_->runs[i].pages);
  }
  see_whether_whole();
}

/// With the lock held. Also for pages that are local already: they were written again.
void BackedFile::mark_local(std::uint64_t page) {
  if (page >= local_.size() || local_[page]) return;
  local_[page] = true;
  --missing_;
  add_page(unrecorded_, page);
}

void BackedFile::see_whether_whole() {
  if (missing_ == 0) whole_.store(true, std::memory_order_release);
}

std::vector<PageRange> BackedFile::take_unrecorded() {
  const Lock lock(mutex_);
  return std::exchange(unrecorded_, {});
}

void BackedFile::give_back(std::vector<PageRange> ranges) {
  const Lock lock(mutex_);
  unrecorded_.insert(unrecorded_.end(), ranges.begin(), ranges.end());
}

}  // namespace holdfast::mount
