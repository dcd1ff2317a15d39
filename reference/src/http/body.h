#pragma once

// The body of a request, taken from the connection: httplib's own reader takes a chunk that is
// longer than it says, and a gzip stream that was cut off, for the end of the body.

#include <cstdint>
#include <optional>

#include "http/message.h"
#include "http/stream.h"

namespace reference::http {

class StreamBody : public Body {
 public:
  /// `length` is nullopt for a body in chunks. `gzip`: it is compressed, and read() hands over what
  /// it was; `limit` holds for both.
  StreamBody(Stream& stream, std::optional<std::uint64_t> length, bool gzip)
      : stream_(stream), length_(length), gzip_(gzip) {}

  void read(std::size_t limit, const std::function<void(std::string_view)>& take) override;
  bool was_read() const { return read_; }

 private:
  using Take = std::function<void(std::string_view)>;
  void read_sized(std::uint64_t size, const Take& take);
  void read_chunks(const Take& take);
  std::string read_line();

  Stream& stream_;
  std::optional<std::uint64_t> length_;
  bool gzip_;
  bool read_ = false;
};

}  // namespace reference::http
