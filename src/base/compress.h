#pragma once

// Compression of one run of bytes at a time.
//
// A Compressor and a Decompressor keep their working memory between calls; each belongs to one
// thread. Decompressing checks that exactly the expected number of bytes comes out, and never
// writes more, whatever the input claims.

#include <memory>

#include "base/bytes.h"

namespace holdfast::base {

/// How a run of bytes is stored. The numbers are part of the repository format.
enum class Codec : std::uint8_t { raw = 0, zstd = 1, lz4 = 2 };

class Compressor {
 public:
  enum class Effort {
    fast,   ///< pages and WAL: as quick as zstd's level 1, as small as its level 3 on such bytes
    dense,  ///< maps and indexes: zstd's level 3
  };
  explicit Compressor(Effort effort);
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  /// Appends the compressed form of `bytes` to `out`, or `bytes` themselves where compression does
  /// not make them smaller, and says which.
  Codec compress(View bytes, Bytes& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Decompressor {
 public:
  Decompressor();
  ~Decompressor();
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  /// Fills `out` exactly; throws Error(corrupt) if the bytes yield anything else.
  void decompress(Codec codec, View bytes, MutableView out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace holdfast::base
