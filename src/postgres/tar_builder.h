#pragma once

// For tests only: tar archives as PostgreSQL writes them (tarCreateHeader in src/port/tar.c), and
// someone who notes what is read out of one.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "postgres/tar_reader.h"

namespace holdfast::postgres::testing {

/// Octal digits and a space, or base-256 where they do not suffice (print_tar_number).
inline void put_number(base::Bytes& header, std::size_t at, std::size_t size, std::uint64_t value) {
  std::size_t end = at + size;
  if (value < std::uint64_t{1} << ((size - 1) * 3)) {
    header[--end] = ' ';
    for (; end > at; value >>= 3) header[--end] = static_cast<std::uint8_t>('0' + (value & 7));
    return;
  }
  header[at] = 0x80;
  for (; end > at + 1; value >>= 8) header[--end] = static_cast<std::uint8_t>(value & 255);
}

inline void put_checksum(base::Bytes& header) {
  std::fill_n(header.begin() + 148, 8, std::uint8_t{' '});
  std::uint64_t sum = 0;
  for (const std::uint8_t byte : header) sum += byte;
  put_number(header, 148, 8, sum);
}

inline base::Bytes tar_header(const std::string& name, std::uint64_t size, char type = '0') {
  base::Bytes header(512);
  const auto put = [&](std::size_t at, std::string_view text) {
    std::ranges::copy(text, header.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(0, name);
  put_number(header, 100, 8, type == '5' ? 0700 : 0600);
  put_number(header, 108, 8, 26);
  put_number(header, 116, 8, 27);
  put_number(header, 124, 12, size);
  put_number(header, 136, 12, 1795424400);
  header[156] = static_cast<std::uint8_t>(type);
  put(257, "ustar");
  put(263, "00");
  put(265, "postgres");
  put(297, "postgres");
  put_number(header, 329, 8, 0);
  put_number(header, 337, 8, 0);
  put_checksum(header);
  return header;
}

inline void append(base::Bytes& bytes, base::View more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

/// A file with its header and padding.
inline base::Bytes tar_file(const std::string& name, std::string_view content) {
  base::Bytes bytes = tar_header(name, content.size());
  append(bytes, base::view(content));
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}

/// Notes what it is told: "mode owner" of directories, and files with their content.
class Noted : public TarVisitor {
 public:
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> directories;
  std::map<std::string, std::uint64_t> sizes;

  void directory(const TarMember& member) override {
    directories[member.path] = fmt::format("{:o} {}", member.mode, member.owner);
  }
  void begin_file(const TarMember& member) override {
    path_ = member.path;
    sizes[path_] = member.size;
    content_.clear();
  }
  void content(base::View bytes) override { content_ += base::text(bytes); }
  void end_file() override { files[path_] = content_; }

 private:
  std::string path_;
  std::string content_;
};

}  // namespace holdfast::postgres::testing
