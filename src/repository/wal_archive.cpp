#include "repository/wal_archive.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "base/error.h"

namespace holdfast::repository {

namespace {

/// WAL is cut into frames of this size: large enough to compress well, small enough that one
/// segment can be compressed by several threads.
constexpr std::size_t wal_frame_bytes = 1 << 20;

struct CompressedFrame {
  base::Codec codec = base::Codec::raw;
  base::Bytes body;
  std::atomic<bool> ready = false;
};

/// Compresses with several threads and hands the frames on in order, while later ones are still
/// being compressed.
void compress_in_order(base::View bytes, unsigned workers,
                       const std::function<void(CompressedFrame&, std::size_t raw)>& take) {
  const std::size_t count = (bytes.size() + wal_frame_bytes - 1) / wal_frame_bytes;
  std::vector<CompressedFrame> frames(count);
  const auto part = [&](std::size_t i) {
    return bytes.subspan(i * wal_frame_bytes,
                         std::min(wal_frame_bytes, bytes.size() - i * wal_frame_bytes));
  };
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  const auto work = [&] {
    try {
      base::Compressor compressor(base::Compressor::Effort::fast);
      for (std::size_t i = next++; i < count; i = next++) {
        frames[i].codec = compressor.compress(part(i), frames[i].body);
        frames[i].ready = true;
        frames[i].ready.notify_one();
      }
    } catch (const std::exception&) {
      failed = true;
      for (CompressedFrame& frame : frames) {
        frame.ready = true;
        frame.ready.notify_one();
      }
    }
  };
  std::vector<std::jthread> threads;
  const std::size_t useful = std::min<std::size_t>(std::max(1U, workers), count);
  for (std::size_t i = 0; i < useful; ++i) threads.emplace_back(work);
  for (std::size_t i = 0; i < count; ++i) {
    frames[i].ready.wait(false);
    if (failed) base::fail(base::Code::internal, "could not compress a WAL file");
    take(frames[i], part(i).size());
    frames[i].body = {};
  }
}

}  // namespace

WalArchive::WalArchive(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

std::string WalArchive::object_name(const std::string& name) const {
  // History files stand beside the timelines' directories, all else within.
  return name.ends_with(".history") ? "wal/" + name : "wal/" + name.substr(0, 8) + "/" + name;
}

WalArchive::Put WalArchive::put(const std::string& name, base::View bytes, unsigned workers,
                                const Same& same) const {
  const auto compare = [&](const base::Bytes& existing) {
    if (std::ranges::equal(existing, bytes) || same(existing, bytes)) {
      // Whoever wrote it may have died before its name was durable (INV-4).
      const std::string object = place_.directory() + "/" + object_name(name);
      repository_.store().settle(object.substr(0, object.rfind('/')));
      return Put::identical;
    }
    throw base::Error(
        base::Code::conflict,
        fmt::format("cannot store WAL file {}: the repository has other bytes under this name",
                    name),
        "two servers may be archiving to one place, or this one was restored without a new "
        "timeline; find out which before anything is removed");
  };
  if (const auto existing = get(name)) return compare(*existing);
  ContainerWriter container(repository_.store(), place_.directory(), object_name(name),
                            Kind::wal_file, new_object_id(), repository_.protection());
  compress_in_order(bytes, workers, [&](CompressedFrame& frame, std::size_t raw) {
    container.add_compressed(frame.codec, raw, frame.body);
  });
  if (container.commit()) return Put::stored;
  const auto winner = get(name);
  if (!winner) base::fail(base::Code::io, "WAL file {} was removed while it was stored", name);
  return compare(*winner);
}

std::optional<base::Bytes> WalArchive::get(const std::string& name) const {
  auto container = ContainerReader::open(repository_.store(), place_.directory(), object_name(name),
                                         Kind::wal_file, repository_.protection());
  if (!container) return std::nullopt;
  base::Decompressor decompressor;
  return container->read_all(decompressor);
}

bool WalArchive::has(const std::string& name) const {
  return repository_.store().stat(place_.directory() + "/" + object_name(name)).has_value();
}

std::vector<std::string> WalArchive::timelines() const {
  std::vector<std::string> found = repository_.store().names(place_.directory() + "/wal");
  std::erase_if(found, [](const std::string& name) { return name.size() != 8; });
  return found;
}

std::vector<WalArchive::File> WalArchive::files(const std::string& timeline) const {
  std::vector<File> found;
  const std::string directory = place_.directory() + "/wal/" + timeline;
  for (const store::ObjectInfo& object : repository_.store().list(directory)) {
    const std::string name = object.name.substr(directory.size() + 1);
    if (name.find('/') == std::string::npos) found.push_back({name, object.size, object.written});
  }
  return found;
}

std::optional<base::Timestamp> WalArchive::last_written() const {
  std::optional<base::Timestamp> last;
  for (const store::ObjectInfo& object : repository_.store().list(place_.directory() + "/wal")) {
    last = std::max(last.value_or(object.written), object.written);
  }
  return last;
}

void WalArchive::settle() const {
  store::ObjectStore& store = repository_.store();
  const std::string directory = place_.directory() + "/wal";
  store.settle(directory);
  for (const std::string& timeline : timelines()) {
    store.settle(directory + "/" + timeline);
    for (const std::string& segment : slices().segments(timeline)) {
      slices().settle(segment);
    }
  }
}

std::vector<std::string> WalArchive::histories() const {
  std::vector<std::string> found = repository_.store().names(place_.directory() + "/wal");
  std::erase_if(found, [](const std::string& name) { return !name.ends_with(".history"); });
  return found;
}

}  // namespace holdfast::repository
