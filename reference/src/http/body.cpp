#include "http/body.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <stdexcept>

#include "http/problem.h"

namespace reference::http {

namespace {

constexpr std::size_t piece_size = 16UL << 10;
constexpr std::size_t longest_line = 1024;  ///< of a chunk's size

[[noreturn]] void broke_off() {
  throw Problem(400, "bad_request", "could not read the body: it broke off");
}

[[noreturn]] void bad_chunk() {
  throw Problem(400, "bad_request", "cannot read the body: its chunks are not as they say");
}

/// Gives what was compressed: members of gzip, one after the other, to the end of the last.
class Inflation {
 public:
  Inflation() {
    if (inflateInit2(&zlib_, 15 + 16) != Z_OK) throw std::runtime_error("could not begin zlib");
  }
  ~Inflation() { inflateEnd(&zlib_); }
  Inflation(const Inflation&) = delete;
  Inflation& operator=(const Inflation&) = delete;

  void add(std::string_view piece, const std::function<void(std::string_view)>& take) {
    zlib_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.data()));
    zlib_.avail_in = static_cast<uInt>(piece.size());
    bool full = false;
    while (zlib_.avail_in > 0 || full) {
      if (ended_ && inflateReset(&zlib_) != Z_OK) refuse();
      zlib_.next_out = reinterpret_cast<Bytef*>(output_.data());
      zlib_.avail_out = static_cast<uInt>(output_.size());
      const int result = inflate(&zlib_, Z_NO_FLUSH);
      if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) refuse();
      ended_ = result == Z_STREAM_END;
      full = !ended_ && zlib_.avail_out == 0;
      take({output_.data(), output_.size() - zlib_.avail_out});
    }
  }
  void end() const {
    if (!ended_) refuse();
  }

 private:
  [[noreturn]] static void refuse() {
    throw Problem(400, "bad_request", "cannot read the body: it is not gzip, or was cut off");
  }
  z_stream zlib_{};
  bool ended_ = false;
  std::array<char, piece_size> output_{};
};

}  // namespace

void StreamBody::read(std::size_t limit, const Take& take) {
  const Problem too_large(413, "too_large", fmt::format("cannot take more than {} bytes", limit));
  if (length_ && *length_ > limit) throw too_large;
  stream_.begin_body();
  const auto counted = [&](std::size_t& count, std::string_view piece) {
    if ((count += piece.size()) > limit) throw too_large;
  };
  std::size_t received = 0;
  std::size_t size = 0;
  std::optional<Inflation> inflation;
  if (gzip_) inflation.emplace();
  const Take all = [&](std::string_view piece) {
    counted(received, piece);
    if (!inflation) return take(piece);
    inflation->add(piece, [&](std::string_view text) {
      counted(size, text);
      take(text);
    });
  };
  if (length_) {
    read_sized(*length_, all);
  } else {
    read_chunks(all);
  }
  read_ = true;
  if (inflation) inflation->end();
}

void StreamBody::read_sized(std::uint64_t size, const Take& take) {
  std::array<char, piece_size> piece;
  while (size > 0) {
    const ssize_t count = stream_.read(piece.data(), std::min<std::uint64_t>(size, piece.size()));
    if (count <= 0) broke_off();
    take({piece.data(), static_cast<std::size_t>(count)});
    size -= static_cast<std::uint64_t>(count);
  }
}

void StreamBody::read_chunks(const Take& take) {
  for (;;) {
    const std::string line = read_line();
    std::uint64_t size = 0;
    const char* const end = line.data() + line.size();
    const auto [after, error] = std::from_chars(line.data(), end, size, 16);
    // What comes behind a semicolon is an extension, which means nothing to us.
    if (error != std::errc() || line.front() == '-' || (after != end && *after != ';')) bad_chunk();
    if (size == 0) break;
    read_sized(size, take);
    if (!read_line().empty()) bad_chunk();
  }
  if (!read_line().empty()) bad_chunk();  // trailers are for nobody here
}

std::string StreamBody::read_line() {
  std::string line;
  char each = 0;
  while (stream_.read(&each, 1) == 1) {
    if (each == '\n') {
      if (!line.ends_with('\r')) bad_chunk();
      line.pop_back();
      return line;
    }
    if (line.ends_with('\r') || line.size() > longest_line) bad_chunk();
    line += each;
  }
  broke_off();
}

}  // namespace reference::http
