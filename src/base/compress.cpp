#include "base/compress.h"

#include <lz4.h>
#include <zstd.h>

#include "base/error.h"

namespace holdfast::base {

struct Compressor::State {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  std::unique_ptr<std::uint8_t[]> scratch;  // not zeroed for each frame, as a vector would be
  std::size_t scratch_size = 0;
  ~State() { ZSTD_freeCCtx(context); }
};

Compressor::Compressor(Effort effort) : state_(std::make_unique<State>()) {
  if (state_->context == nullptr) fail(Code::internal, "could not allocate memory for zstd");
  const auto set = [this](ZSTD_cParameter parameter, int value) {
    ZSTD_CCtx_setParameter(state_->context, parameter, value);
  };
  if (effort == Effort::dense) {
    set(ZSTD_c_compressionLevel, 3);
  } else {
    // Measured on 4.3 GB of pgbench and mixed tables in 256 KiB frames (docs/performance.md): the
    // fast strategy with matches from 5 bytes on and a hash table that fits the L1 cache.
    set(ZSTD_c_compressionLevel, 1);
    set(ZSTD_c_strategy, ZSTD_fast);
    set(ZSTD_c_windowLog, 18);
    set(ZSTD_c_hashLog, 13);
    set(ZSTD_c_minMatch, 5);
  }
  // What is compressed is sealed or checked as a whole; a second checksum would only cost.
  set(ZSTD_c_checksumFlag, 0);
}

Compressor::~Compressor() = default;

Codec Compressor::compress(View bytes, Bytes& out) {
  const std::size_t bound = ZSTD_compressBound(bytes.size());
  if (state_->scratch_size < bound) {
    state_->scratch = std::make_unique_for_overwrite<std::uint8_t[]>(bound);
    state_->scratch_size = bound;
  }
  std::uint8_t* scratch = state_->scratch.get();
  const std::size_t size =
      ZSTD_compress2(state_->context, scratch, bound, bytes.data(), bytes.size());
  if (ZSTD_isError(size) != 0) {
    fail(Code::internal, "could not compress: {}", ZSTD_getErrorName(size));
  }
  if (size >= bytes.size()) {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return Codec::raw;
  }
  out.insert(out.end(), scratch, scratch + size);
  return Codec::zstd;
}

struct Decompressor::State {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  ~State() { ZSTD_freeDCtx(context); }
};

Decompressor::Decompressor() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr) fail(Code::internal, "could not allocate memory for zstd");
}

Decompressor::~Decompressor() = default;

void Decompressor::decompress(Codec codec, View bytes, MutableView out) {
  switch (codec) {
    case Codec::raw:
      if (bytes.size() != out.size()) break;
      if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case Codec::zstd: {
      const std::size_t size =
          ZSTD_decompressDCtx(state_->context, out.data(), out.size(), bytes.data(), bytes.size());
      if (ZSTD_isError(size) != 0 || size != out.size()) break;
      return;
    }
    case Codec::lz4: {
      if (bytes.size() > LZ4_MAX_INPUT_SIZE || out.size() > LZ4_MAX_INPUT_SIZE) break;
      const int size = LZ4_decompress_safe(
          reinterpret_cast<const char*>(bytes.data()), reinterpret_cast<char*>(out.data()),
          static_cast<int>(bytes.size()), static_cast<int>(out.size()));
      if (size < 0 || static_cast<std::size_t>(size) != out.size()) break;
      return;
    }
  }
  fail(Code::corrupt, "compressed bytes do not yield the {} bytes that they should", out.size());
}

}  // namespace holdfast::base
