#include "repository/wal_slices.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::repository {

namespace {

using base::Code;
using base::Error;

constexpr std::string_view directory_end = ".d";
constexpr std::size_t frame_bytes = 1 << 20;

std::optional<std::uint64_t> parse_start(std::string_view name) {
  if (name.size() != 16) return std::nullopt;
  std::uint64_t start = 0;
  for (const char c : name) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'A' || c > 'F')) return std::nullopt;
    start = start << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'A' + 10);
  }
  return start;
}

[[noreturn]] void refuse(const std::string& segment, std::uint64_t start) {
  throw Error(Code::conflict,
              fmt::format("cannot store WAL of segment {} from {:X}/{:X} on: the repository has "
                          "other bytes there",
                          segment, start >> 32, start & 0xFFFFFFFF),
              "two servers may be writing to one place, or this one went back in time without a "
              "new timeline; find out which before anything is removed");
}

}  // namespace

WalSlices::WalSlices(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

std::string WalSlices::directory_name(const std::string& segment) const {
  return fmt::format("wal/{}/{}{}", segment.substr(0, 8), segment, directory_end);
}

std::string WalSlices::object_name(const std::string& segment, std::uint64_t start) const {
  return fmt::format("{}/{:016X}", directory_name(segment), start);
}

std::optional<ContainerReader> WalSlices::open(const std::string& segment,
                                               std::uint64_t start) const {
  return ContainerReader::open(repository_.store(), place_.directory(), object_name(segment, start),
                               Kind::wal_slice, repository_.protection());
}

std::optional<base::Bytes> WalSlices::get(const std::string& segment, std::uint64_t start) const {
  auto container = open(segment, start);
  if (!container) return std::nullopt;
  base::Decompressor decompressor;
  return container->read_all(decompressor);
}

std::uint64_t WalSlices::put(const std::string& segment, std::uint64_t start,
                             base::View bytes) const {
  const std::string name = object_name(segment, start);
  // Twice: one that cannot be read is removed after the first try.
  for (int attempt = 0; attempt < 2; ++attempt) {
    ContainerWriter container(repository_.store(), place_.directory(), name, Kind::wal_slice,
                              new_object_id(), repository_.protection());
    base::Compressor compressor(base::Compressor::Effort::fast);
    for (std::size_t at = 0; at < bytes.size(); at += frame_bytes) {
      container.add(bytes.subspan(at, std::min(frame_bytes, bytes.size() - at)), compressor);
    }
    if (container.commit()) return bytes.size();
    try {
      const auto existing = get(segment, start);
      if (!existing) continue;  // removed meanwhile
      const std::size_t common = std::min(existing->size(), bytes.size());
      if (!std::equal(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(common),
                      existing->begin())) {
        refuse(segment, start);
      }
      return common;
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      repository_.store().remove(place_.directory() + "/" + name);
    }
  }
  base::fail(Code::io, "could not store \"{}\": somebody else changes it", name);
}

std::vector<std::string> WalSlices::segments(const std::string& timeline) const {
  std::vector<std::string> found =
      repository_.store().names(place_.directory() + "/wal/" + timeline);
  std::erase_if(found, [](const std::string& name) { return !name.ends_with(directory_end); });
  for (std::string& name : found) name.resize(name.size() - directory_end.size());
  return found;
}

std::vector<std::uint64_t> WalSlices::starts(const std::string& segment) const {
  std::vector<std::uint64_t> found;
  for (const std::string& name :
       repository_.store().names(place_.directory() + "/" + directory_name(segment))) {
    if (const auto start = parse_start(name)) found.push_back(*start);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<std::uint64_t> WalSlices::first(const std::string& segment) const {
  const auto found = starts(segment);
  return found.empty() ? std::nullopt : std::optional(found.front());
}

WalSlices::Reach WalSlices::reach(const std::string& segment, std::uint64_t segment_start) const {
  Reach result{segment_start, false};
  for (const std::uint64_t start : starts(segment)) {
    if (start > result.end) return {result.end, true};
    try {
      const auto container = open(segment, start);
      if (!container) continue;
      std::uint64_t size = 0;
      for (const FrameInfo& frame : container->frames()) size += frame.raw;
      result.end = std::max(result.end, start + size);
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      result.hole = true;
    }
  }
  return result;
}

WalSlices::Assembled WalSlices::assemble(const std::string& segment,
                                         std::uint64_t segment_start) const {
  Assembled result;
  for (const std::uint64_t start : starts(segment)) {
    const std::uint64_t end = segment_start + result.bytes.size();
    if (start < segment_start || start > end) return {std::move(result.bytes), true};
    const auto bytes = get(segment, start);
    if (!bytes) continue;  // removed meanwhile: the next one shows whether it is missed
    const std::uint64_t again = std::min<std::uint64_t>(end - start, bytes->size());
    const auto middle = bytes->begin() + static_cast<std::ptrdiff_t>(again);
    if (!std::equal(bytes->begin(), middle,
                    result.bytes.begin() + static_cast<std::ptrdiff_t>(start - segment_start))) {
      base::fail(Code::corrupt, "the slices of WAL segment {} do not agree", segment);
    }
    result.bytes.insert(result.bytes.end(), middle, bytes->end());
  }
  return result;
}

void WalSlices::settle(const std::string& segment) const {
  repository_.store().settle(place_.directory() + "/" + directory_name(segment));
}

void WalSlices::remove(const std::string& segment) const {
  // From the end: what is left at any moment has no hole.
  const auto found = starts(segment);
  for (auto start = found.rbegin(); start != found.rend(); ++start) {
    repository_.store().remove(place_.directory() + "/" + object_name(segment, *start));
  }
}

}  // namespace holdfast::repository
