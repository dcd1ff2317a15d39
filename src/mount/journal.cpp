#include "mount/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/hash.h"

namespace holdfast::mount {

namespace {

enum class Kind : std::uint8_t { gone = 1, cut = 2, cut_done = 3, local = 4 };

constexpr std::string_view magic = "HOLDFAST mount journal 1\n";

/// Length, payload, digest.
base::Bytes framed(base::View payload) {
  base::ByteWriter out;
  out.u32(static_cast<std::uint32_t>(payload.size()));
  out.raw(payload);
  out.u64(base::hash128(payload).low);
  return out.take();
}

base::Bytes gone_record(const std::string& path) {
  base::ByteWriter out;
  out.u8(static_cast<std::uint8_t>(Kind::gone));
  out.string(path);
  return framed(out.bytes());
}

base::Bytes cut_record(const std::string& path, std::uint64_t size, bool done) {
  base::ByteWriter out;
  out.u8(static_cast<std::uint8_t>(done ? Kind::cut_done : Kind::cut));
  out.string(path);
  out.varint(size);
  return framed(out.bytes());
}

base::Bytes local_record(const std::string& path, const std::vector<PageRange>& ranges) {
  base::ByteWriter out;
  out.u8(static_cast<std::uint8_t>(Kind::local));
  out.string(path);
  out.varint(ranges.size());
  for (const PageRange& range : ranges) {
    out.varint(range.first);
    out.varint(range.count);
  }
  return framed(out.bytes());
}

void apply(Journal::State& state, base::View payload) {
  base::ByteReader in(payload, "the journal of an instant restore");
  const std::uint8_t kind = in.u8();
  const std::string path = in.string();
  if (kind == static_cast<std::uint8_t>(Kind::gone)) {
    state.gone.insert(path);
    state.files.erase(path);
  } else if (kind == static_cast<std::uint8_t>(Kind::cut) ||
             kind == static_cast<std::uint8_t>(Kind::cut_done)) {
    Journal::FileState& file = state.files[path];
    const std::uint64_t size = in.varint();
    file.cut = std::min(file.cut.value_or(size), size);
    file.cut_is_done = kind == static_cast<std::uint8_t>(Kind::cut_done);
  } else if (kind == static_cast<std::uint8_t>(Kind::local)) {
    Journal::FileState& file = state.files[path];
    for (std::uint64_t left = in.varint(); left > 0; --left) {
      const std::uint64_t first = in.varint();
      file.local.push_back({first, in.varint()});
    }
  } else {
    in.corrupt("a record of an unknown kind");
  }
  in.expect_end();
}

/// Joins what touches or overlaps.
void tidy(std::vector<PageRange>& ranges) {
  std::ranges::sort(ranges, {}, &PageRange::first);
  std::vector<PageRange> joined;
  for (const PageRange& range : ranges) {
    if (!joined.empty() && range.first <= joined.back().first + joined.back().count) {
      PageRange& last = joined.back();
      last.count = std::max(last.first + last.count, range.first + range.count) - last.first;
    } else {
      joined.push_back(range);
    }
  }
  ranges = std::move(joined);
}

Journal::State read_state(const base::fs::path& path) {
  Journal::State state;
  const auto bytes = base::read_file(path);
  if (!bytes) return state;
  if (bytes->size() < magic.size() || base::text(*bytes).substr(0, magic.size()) != magic) {
    base::fail(base::Code::corrupt, "\"{}\" is not the journal of an instant restore",
               path.string());
  }
  base::View left = base::View(*bytes).subspan(magic.size());
  // The first record that is not whole is where a death or a power cut ended it: nobody was told
  // that it, or any behind it, is durable.
  while (left.size() >= 12) {
    const auto size = base::load<std::uint32_t>(left.data());
    if (size > left.size() - 12) break;
    const base::View payload = left.subspan(4, size);
    if (base::hash128(payload).low != base::load<std::uint64_t>(left.data() + 4 + size)) break;
    apply(state, payload);
    left = left.subspan(12 + size);
  }
  for (auto& [name, file] : state.files) tidy(file.local);
  return state;
}

}  // namespace

Journal::Journal(base::fs::path path) : path_(std::move(path)), state_(read_state(path_)) {
  base::Bytes anew = base::copy(base::view(magic));
  const auto add = [&anew](const base::Bytes& record) {
    anew.insert(anew.end(), record.begin(), record.end());
  };
  for (const std::string& name : state_.gone) add(gone_record(name));
  for (const auto& [name, file] : state_.files) {
    if (file.cut) add(cut_record(name, *file.cut, file.cut_is_done));
    if (!file.local.empty()) add(local_record(name, file.local));
  }
  base::replace_file(path_, anew);
  written_ = synced_ = anew.size();
  file_ = base::open_file(path_, O_WRONLY | O_APPEND);
}

void Journal::append(base::View record) {
  const std::lock_guard lock(write_mutex_);
  if (failed_) base::fail(base::Code::io, "could not write \"{}\" before", path_.string());
  try {
    base::write_all(file_, record, path_);
  } catch (...) {
    // Half a record would hide all behind it.
    if (::ftruncate(file_.get(), static_cast<off_t>(written_)) != 0) failed_ = true;
    throw;
  }
  written_ += record.size();
}

void Journal::gone(const std::string& path) {
  append(gone_record(path));
}

void Journal::cut(const std::string& path, std::uint64_t size, bool done) {
  append(cut_record(path, size, done));
}

void Journal::local(const std::string& path, const std::vector<PageRange>& ranges) {
  if (!ranges.empty()) append(local_record(path, ranges));
}

void Journal::sync() {
  std::uint64_t wanted = 0;
  {
    const std::lock_guard lock(write_mutex_);
    wanted = written_;
  }
  const std::lock_guard lock(sync_mutex_);
  if (synced_ >= wanted) return;
  std::uint64_t now = 0;
  {
    const std::lock_guard write_lock(write_mutex_);
    if (failed_) base::fail(base::Code::io, "could not write \"{}\" before", path_.string());
    now = written_;
  }
  if (::fdatasync(file_.get()) != 0) {
    const int error = errno;
    const std::lock_guard write_lock(write_mutex_);
    failed_ = true;
    base::fail_errno(fmt::format("sync \"{}\"", path_.string()), error);
  }
  synced_ = now;
}

}  // namespace holdfast::mount
