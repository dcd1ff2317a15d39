#include "imports/utf8.h"

#include <cstddef>

namespace reference::imports {
namespace {

bool is_between(unsigned char byte, unsigned char low, unsigned char high) {
  return byte >= low && byte <= high;
}

/// The length of the sequence at `at`; 0 if it is none (Unicode, table 3-7).
std::size_t sequence(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t index) {
    return at + index < text.size() ? static_cast<unsigned char>(text[at + index])
                                    : static_cast<unsigned char>(0);
  };
  const auto follows = [&](std::size_t index) { return is_between(byte(index), 0x80, 0xbf); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (is_between(first, 0xc2, 0xdf)) return follows(1) ? 2 : 0;
  if (is_between(first, 0xe0, 0xef)) {
    const unsigned char low = first == 0xe0 ? 0xa0 : 0x80;
    const unsigned char high = first == 0xed ? 0x9f : 0xbf;
    return is_between(byte(1), low, high) && follows(2) ? 3 : 0;
  }
  if (!is_between(first, 0xf0, 0xf4)) return 0;
  const unsigned char low = first == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = first == 0xf4 ? 0x8f : 0xbf;
  return is_between(byte(1), low, high) && follows(2) && follows(3) ? 4 : 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

}  // namespace reference::imports
