#pragma once

// A tar archive as PostgreSQL writes it (ustar, src/port/tar.c), read while its bytes arrive.
//
// It holds one header at a time and passes contents on as they come. Strict: what is not a regular
// file or a directory, a header whose checksum fails, a path that leads out of the archive, bytes
// behind the end: Error(corrupt). An archive may end without the two blocks of zeros (up to version
// 14 the server sends none), so that it is whole is proven by the backup manifest, not here.

#include <string>

#include "base/bytes.h"

namespace holdfast::postgres {

struct TarMember {
  enum class Kind { file, directory };
  Kind kind = Kind::file;
  std::string path;  ///< without "./" in front and "/" at the end
  std::uint64_t size = 0;
  std::uint32_t mode = 0;  ///< permission bits
  std::string owner;       ///< "user:group" by name, or by number where there is no name
};

/// Who takes what is in an archive.
class TarVisitor {
 public:
  virtual ~TarVisitor() = default;
  virtual void directory(const TarMember& member) = 0;
  virtual void begin_file(const TarMember& member) = 0;
  virtual void content(base::View bytes) = 0;  ///< of the file that was begun: `size` bytes in all
  virtual void end_file() = 0;
};

class TarReader {
 public:
  explicit TarReader(TarVisitor& visitor) : visitor_(&visitor) {}

  void feed(base::View bytes);
  /// Throws Error(corrupt) if the archive ends inside a member.
  void finish() const;

 private:
  enum class State { header, content, padding, trailer };
  void read_header();
  void end_content();

  TarVisitor* visitor_;
  State state_ = State::header;
  base::Bytes header_;      ///< what there is of it
  std::uint64_t left_ = 0;  ///< of the content, or of the padding
  std::uint64_t size_ = 0;
};

/// A relative path without empty parts, "." and "..".
bool is_plain_path(std::string_view path);

}  // namespace holdfast::postgres
