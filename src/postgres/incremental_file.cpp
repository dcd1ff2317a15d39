#include "postgres/incremental_file.h"

#include <algorithm>

#include "base/error.h"
#include "postgres/data_directory.h"

namespace holdfast::postgres {

namespace {

constexpr std::string_view prefix = "INCREMENTAL.";
constexpr std::uint32_t magic = 0xd3ae1f0d;
constexpr std::size_t fixed_bytes = 12;
constexpr std::size_t block_bytes = 8192;

[[noreturn]] void corrupt(std::string_view why) {
  base::fail(base::Code::corrupt, "the server sent an incremental file that cannot be one: {}",
             why);
}

/// It is filled up to whole blocks, unless none follow.
std::uint64_t header_bytes(std::uint64_t blocks) {
  const std::uint64_t bytes = fixed_bytes + blocks * sizeof(std::uint32_t);
  return blocks == 0 ? bytes : (bytes + block_bytes - 1) / block_bytes * block_bytes;
}

}  // namespace

std::optional<std::string> stands_for(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  const std::size_t name = slash == std::string_view::npos ? 0 : slash + 1;
  if (!path.substr(name).starts_with(prefix)) return std::nullopt;
  std::string other(path.substr(0, name));
  other += path.substr(name + prefix.size());
  if (!relation_file(other)) return std::nullopt;
  return other;
}

std::uint32_t IncrementalHeader::length() const {
  return blocks.empty() ? kept_length : std::max(kept_length, blocks.back() + 1);
}

IncrementalReader::IncrementalReader(std::uint64_t size, std::uint32_t segment_blocks)
    : size_(size), segment_blocks_(segment_blocks), header_size_(fixed_bytes) {
  if (size < fixed_bytes) corrupt("it is too short");
}

base::View IncrementalReader::take(base::View bytes) {
  while (!complete_ && !bytes.empty()) {
    const std::size_t taken = std::min(header_size_ - bytes_.size(), bytes.size());
    const base::View part = bytes.first(taken);
    bytes_.insert(bytes_.end(), part.begin(), part.end());
    bytes = bytes.subspan(taken);
    if (bytes_.size() < header_size_) break;
    if (!fixed_) {
      read_fixed();
    }
    if (bytes_.size() == header_size_) read_blocks();
  }
  return bytes;
}

void IncrementalReader::read_fixed() {
  fixed_ = true;
  if (base::load<std::uint32_t>(bytes_.data()) != magic) corrupt("it does not begin like one");
  const auto count = base::load<std::uint32_t>(bytes_.data() + 4);
  header_.kept_length = base::load<std::uint32_t>(bytes_.data() + 8);
  if (count > segment_blocks_ || header_.kept_length > segment_blocks_) {
    corrupt("it speaks of more blocks than a file has");
  }
  if (size_ != header_bytes(count) + std::uint64_t{count} * block_bytes) {
    corrupt("it has not the size that its blocks need");
  }
  header_.blocks.resize(count);
  header_size_ = static_cast<std::size_t>(header_bytes(count));
}

void IncrementalReader::read_blocks() {
  complete_ = true;
  const std::uint8_t* at = bytes_.data() + fixed_bytes;
  std::uint64_t next = 0;  // the lowest number that may come
  for (std::uint32_t& block : header_.blocks) {
    block = base::load<std::uint32_t>(at);
    at += sizeof block;
    if (block < next || block >= segment_blocks_) corrupt("its blocks are in no order");
    next = std::uint64_t{block} + 1;
  }
  bytes_ = {};
}

}  // namespace holdfast::postgres
