#include "base/bytes.h"

#include <bit>

#include "base/error.h"

namespace holdfast::base {

static_assert(std::endian::native == std::endian::little, "Holdfast's formats are little-endian");

std::string to_hex(View bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    hex.push_back(digits[byte >> 4]);
    hex.push_back(digits[byte & 15]);
  }
  return hex;
}

namespace {

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  if (hex.size() % 2 != 0) fail(Code::corrupt, "\"{}\" is not hexadecimal", hex);
  bytes.reserve(hex.size() / 2);
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) fail(Code::corrupt, "\"{}\" is not hexadecimal", hex);
    bytes.push_back(static_cast<std::uint8_t>(high << 4 | low));
  }
  return bytes;
}

void ByteWriter::varint(std::uint64_t value) {
  while (value >= 0x80) {
    bytes_.push_back(static_cast<std::uint8_t>(value | 0x80));
    value >>= 7;
  }
  bytes_.push_back(static_cast<std::uint8_t>(value));
}

void ByteWriter::signed_varint(std::int64_t value) {
  varint(static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63));
}

void ByteWriter::string(std::string_view value) {
  varint(value.size());
  raw(view(value));
}

std::uint64_t ByteReader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const std::uint8_t byte = u8();
    if (shift == 63 && byte > 1) break;
    if (shift > 0 && byte == 0) corrupt("a number is longer than it needs to be");
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  corrupt("a number is too long");
}

std::int64_t ByteReader::signed_varint() {
  const std::uint64_t value = varint();
  return static_cast<std::int64_t>(value >> 1 ^ (~(value & 1) + 1));
}

std::uint64_t ByteReader::varint_at_most(std::uint64_t limit) {
  const std::uint64_t value = varint();
  if (value > limit) corrupt(fmt::format("{} where at most {} is possible", value, limit));
  return value;
}

View ByteReader::raw(std::size_t count) {
  if (count > left()) corrupt("it ends too early");
  const View part = bytes_.subspan(at_, count);
  at_ += count;
  return part;
}

std::string ByteReader::string() {
  const std::size_t length = varint_at_most(left());
  return std::string(text(raw(length)));
}

void ByteReader::expect_end() const {
  if (left() != 0) corrupt(fmt::format("{} bytes follow its end", left()));
}

void ByteReader::corrupt(std::string_view why) const {
  fail(Code::corrupt, "{} is corrupt at byte {}: {}", what_, at_, why);
}

}  // namespace holdfast::base
