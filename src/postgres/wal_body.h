#pragma once

// The body of a WAL record taken apart: block references, then main data (access/xlogrecord.h, read
// as DecodeXLogRecord in xlogreader.c does), for PostgreSQL 13 to 18.
//
// Nothing is allocated and nothing is copied. What does not parse is refused as a whole: never a
// byte is read behind the body.

#include <compare>
#include <optional>

#include "postgres/wal_reader.h"

namespace holdfast::postgres {

/// What PostgreSQL's files of a relation are named after.
struct RelationId {
  std::uint32_t tablespace = 0;
  std::uint32_t database = 0;
  std::uint32_t relation = 0;
  auto operator<=>(const RelationId&) const = default;
};

inline RelationId load_relation(const std::uint8_t* at) {
  return {base::load<std::uint32_t>(at), base::load<std::uint32_t>(at + 4),
          base::load<std::uint32_t>(at + 8)};
}

/// One of the blocks that a record refers to.
struct BlockReference {
  RelationId relation;
  std::uint8_t fork = 0;
  std::uint32_t block = 0;
  bool has_image = false;  ///< the whole page is in the record, and replay restores it
  bool will_init = false;  ///< replay makes the page anew
};

/// RM_..._ID of access/rmgrlist.h: the same numbers in 13 to 18.
namespace resource_manager {
constexpr std::uint8_t xlog = 0;
constexpr std::uint8_t transaction = 1;
constexpr std::uint8_t storage = 2;
constexpr std::uint8_t database = 4;
constexpr std::uint8_t tablespace = 5;
constexpr std::uint8_t relation_map = 7;
constexpr std::uint8_t heap2 = 9;
constexpr std::uint8_t heap = 10;
constexpr std::uint8_t last = 21;  ///< logical messages
}  // namespace resource_manager

namespace wal_body {

constexpr unsigned id_last_block = 32;
constexpr unsigned id_top_transaction = 252;
constexpr unsigned id_origin = 253;
constexpr unsigned id_long_data = 254;
constexpr unsigned id_short_data = 255;
constexpr unsigned fork_mask = 0x0F;
constexpr unsigned last_fork = 3;
constexpr unsigned flag_image = 0x10;
constexpr unsigned flag_data = 0x20;
constexpr unsigned flag_init = 0x40;
constexpr unsigned flag_same_relation = 0x80;
constexpr unsigned image_has_hole = 1;

/// Whether the image is compressed, and whether replay restores it. (15 moved these bits.)
inline bool is_compressed(unsigned image_info, int major) {
  return (image_info & (major >= 15 ? 0x1CU : 0x02U)) != 0;
}
inline bool is_applied(unsigned image_info, int major) {
  return (image_info & (major >= 15 ? 0x02U : 0x04U)) != 0;
}

/// The headers at the front of a body.
class Headers {
 public:
  Headers(base::View body, int major) : body_(body), major_(major) {}

  bool has(std::size_t count) const { return body_.size() - at_ >= count; }
  /// While headers go on: what is left is more than the data that those read so far announce.
  bool more() const { return body_.size() - at_ > data_; }
  template <typename T>
  T take() {
    const T value = base::load<T>(body_.data() + at_);
    at_ += sizeof(T);
    return value;
  }
  void announce(std::size_t count) { data_ += count; }
  void skip(std::size_t count) { at_ += count; }
  bool is_complete() const { return body_.size() - at_ == data_; }

  /// The block reference whose id has been read.
  bool read(BlockReference& block, bool follows_another) {
    if (!has(3)) return false;
    const unsigned flags = take<std::uint8_t>();
    const std::size_t length = take<std::uint16_t>();
    if (((flags & flag_data) != 0) != (length > 0)) return false;
    announce(length);
    block.fork = static_cast<std::uint8_t>(flags & fork_mask);
    block.will_init = (flags & flag_init) != 0;
    block.has_image = false;
    if (block.fork > last_fork) return false;
    if ((flags & flag_image) != 0 && !read_image(block)) return false;
    if ((flags & flag_same_relation) != 0) {
      if (!follows_another) return false;
    } else {
      if (!has(12)) return false;
      block.relation = load_relation(body_.data() + at_);
      skip(12);
    }
    if (!has(4)) return false;
    block.block = take<std::uint32_t>();
    return block.block != 0xFFFFFFFF;
  }

 private:
  bool read_image(BlockReference& block) {
    if (!has(5)) return false;
    announce(take<std::uint16_t>());
    take<std::uint16_t>();  // where the hole is
    const unsigned info = take<std::uint8_t>();
    block.has_image = is_applied(info, major_);
    if ((info & image_has_hole) == 0 || !is_compressed(info, major_)) return true;
    if (!has(2)) return false;
    take<std::uint16_t>();  // how long it is
    return true;
  }

  base::View body_;
  int major_;
  std::size_t at_ = 0;
  std::size_t data_ = 0;
};

}  // namespace wal_body

/// Calls `on_block(const BlockReference&)` for each block that the record refers to, in their
/// order, and gives its main data (which may be empty). nullopt if the body does not parse; blocks
/// before the place that does not have been told by then.
template <typename OnBlock>
std::optional<base::View> read_body(const WalRecord& record, const OnBlock& on_block) {
  wal_body::Headers headers(record.body, record.major);
  BlockReference block;
  unsigned next_id = 0;
  std::size_t main_size = 0;
  while (headers.more()) {
    const unsigned id = headers.take<std::uint8_t>();
    if (id <= wal_body::id_last_block) {
      if (id < next_id || !headers.read(block, next_id > 0)) return std::nullopt;
      next_id = id + 1;
      on_block(static_cast<const BlockReference&>(block));
      continue;
    }
    if (id == wal_body::id_short_data || id == wal_body::id_long_data) {
      const bool is_short = id == wal_body::id_short_data;
      if (!headers.has(is_short ? 1 : 4)) return std::nullopt;
      main_size = is_short ? headers.take<std::uint8_t>() : headers.take<std::uint32_t>();
      headers.announce(main_size);
      break;  // it is always the last
    }
    const std::size_t size = id == wal_body::id_origin            ? 2
                             : id == wal_body::id_top_transaction ? 4
                                                                  : 0;
    if (size == 0 || !headers.has(size)) return std::nullopt;
    headers.skip(size);
  }
  if (!headers.is_complete()) return std::nullopt;
  return record.body.last(main_size);
}

}  // namespace holdfast::postgres
