#pragma once

// Bytes in memory, and reading and writing them as little-endian numbers and varints.
//
// ByteReader reads what somebody else wrote, so it trusts nothing: it never reads past its view and
// throws Error(corrupt) instead. Numbers are little-endian; a varint is LEB128 of at most 64 bits.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::base {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;
using MutableView = std::span<std::uint8_t>;

inline View view(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view text(View bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes copy(View bytes) {
  return {bytes.begin(), bytes.end()};
}

std::string to_hex(View bytes);
/// The bytes that `hex` spells; throws Error(corrupt) if it spells none.
Bytes from_hex(std::string_view hex);

/// Reads a number that stands at `at` in native (little-endian) order. The caller has checked
/// bounds.
template <typename T>
T load(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <typename T>
void store(std::uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

class ByteWriter {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(value); }
  void u16(std::uint16_t value) { fixed(value); }
  void u32(std::uint32_t value) { fixed(value); }
  void u64(std::uint64_t value) { fixed(value); }
  void varint(std::uint64_t value);
  /// Signed numbers near zero in few bytes (zigzag).
  void signed_varint(std::int64_t value);
  void raw(View bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  /// Length, then the bytes.
  void string(std::string_view value);

  std::size_t size() const { return bytes_.size(); }
  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  template <typename T>
  void fixed(T value) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof value);
  }
  Bytes bytes_;
};

class ByteReader {
 public:
  /// Reads `bytes`, which must outlive the reader. `what` names them in errors.
  ByteReader(View bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  std::uint8_t u8() { return fixed<std::uint8_t>(); }
  std::uint16_t u16() { return fixed<std::uint16_t>(); }
  std::uint32_t u32() { return fixed<std::uint32_t>(); }
  std::uint64_t u64() { return fixed<std::uint64_t>(); }
  std::uint64_t varint();
  std::int64_t signed_varint();
  /// A varint that must not exceed `limit`: for counts and lengths, before anything is allocated.
  std::uint64_t varint_at_most(std::uint64_t limit);
  View raw(std::size_t count);
  std::string string();

  std::size_t left() const { return bytes_.size() - at_; }
  std::size_t position() const { return at_; }
  /// Throws Error(corrupt) unless everything has been read.
  void expect_end() const;
  [[noreturn]] void corrupt(std::string_view why) const;

 private:
  template <typename T>
  T fixed() {
    return load<T>(raw(sizeof(T)).data());
  }
  View bytes_;
  std::string what_;
  std::size_t at_ = 0;
};

}  // namespace holdfast::base
