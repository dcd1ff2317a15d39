#pragma once

// WAL of any kind, made byte by byte: for tests only. (Real WAL lacks what tests need most.)

#include <algorithm>
#include <vector>

#include "postgres/crc32c.h"
#include "postgres/wal_page.h"

namespace holdfast::postgres {

/// Writes WAL as a server does: records one after the other, over pages and segments.
class WalBuilder {
 public:
  static constexpr SegmentSize segment_size{1 << 20};
  static constexpr Lsn origin{5 * segment_size.bytes};  ///< where the first segment begins

  explicit WalBuilder(std::uint16_t magic = 0xD110, Lsn begin = origin)
      : begin_(begin), previous_{begin.value - 100}, magic_(magic) {}

  Lsn append(std::uint8_t manager, std::uint8_t info, std::uint32_t transaction,
             const base::Bytes& body) {
    const Lsn start = begin_record();
    const base::Bytes record = make(manager, info, transaction, body);
    write(record);
    previous_ = start;
    return start;
  }
  Lsn append(std::size_t length, std::uint32_t transaction) {
    base::Bytes body(length);
    for (std::size_t i = 0; i < length; ++i) body[i] = static_cast<std::uint8_t>(i * 7 + length);
    return append(10, 0, transaction, body);
  }
  /// XLOG_SWITCH: what is left of the segment stays zero.
  void switch_segment() {
    append(0, 0x40, 0, {});
    bytes_.resize((bytes_.size() + segment_size.bytes - 1) / segment_size.bytes *
                  segment_size.bytes);
  }
  /// A crash in a record that was longer than its page; after the restart it is overwritten.
  void abandon_record() {
    begin_record();
    const base::Bytes record = make(10, 0, 1, base::Bytes(2 * wal_page_size));
    const std::size_t space = wal_page_size - bytes_.size() % wal_page_size;
    bytes_.insert(bytes_.end(), record.begin(),
                  record.begin() + static_cast<std::ptrdiff_t>(space));
    page_header(wal_page_flags::overwrites_record, 0);
  }
  void set_timeline(std::uint32_t timeline) { timeline_ = timeline; }
  /// The next record begins on a new page.
  void fill_page() {
    begin_record();
    const std::size_t space = wal_page_size - bytes_.size() % wal_page_size;
    append(space - 24, 9);
  }

  Lsn position() const { return {begin_.value + bytes_.size()}; }
  std::vector<base::Bytes> segments() const {
    std::vector<base::Bytes> result;
    for (std::size_t at = 0; at < bytes_.size(); at += segment_size.bytes) {
      const std::size_t end = std::min<std::size_t>(bytes_.size(), at + segment_size.bytes);
      result.emplace_back(bytes_.begin() + static_cast<std::ptrdiff_t>(at),
                          bytes_.begin() + static_cast<std::ptrdiff_t>(end));
      result.back().resize(segment_size.bytes);
    }
    return result;
  }

 private:
  base::Bytes make(std::uint8_t manager, std::uint8_t info, std::uint32_t transaction,
                   const base::Bytes& body) const {
    base::ByteWriter writer;
    writer.u32(static_cast<std::uint32_t>(24 + body.size()));
    writer.u32(transaction);
    writer.u64(previous_.value);
    writer.u8(info);
    writer.u8(manager);
    writer.u16(0);
    writer.u32(crc32c(writer.bytes(), crc32c(body)));
    writer.raw(body);
    return writer.take();
  }
  Lsn begin_record() {
    bytes_.resize((bytes_.size() + 7) / 8 * 8);
    if (bytes_.size() % wal_page_size == 0) page_header(0, 0);
    return position();
  }
  void write(base::View record) {
    while (!record.empty()) {
      if (bytes_.size() % wal_page_size == 0) {
        page_header(wal_page_flags::first_is_continuation, record.size());
      }
      const std::size_t space = wal_page_size - bytes_.size() % wal_page_size;
      const base::View part = record.first(std::min(space, record.size()));
      bytes_.insert(bytes_.end(), part.begin(), part.end());
      record = record.subspan(part.size());
    }
  }
  void page_header(unsigned flags, std::size_t remaining) {
    const bool is_first = bytes_.size() % segment_size.bytes == 0;
    base::ByteWriter writer;
    writer.u16(magic_);
    writer.u16(static_cast<std::uint16_t>(flags | (is_first ? wal_page_flags::long_header : 0)));
    writer.u32(timeline_);
    writer.u64(position().value);
    writer.u32(static_cast<std::uint32_t>(remaining));
    writer.u32(0);
    if (is_first) {
      writer.u64(77);
      writer.u32(segment_size.bytes);
      writer.u32(wal_page_size);
    }
    bytes_.insert(bytes_.end(), writer.bytes().begin(), writer.bytes().end());
  }

  base::Bytes bytes_;
  Lsn begin_;  ///< where the first segment begins
  Lsn previous_;
  std::uint16_t magic_;
  std::uint32_t timeline_ = 3;
};

}  // namespace holdfast::postgres
