#pragma once

// The one file format of a repository: frames, then an index that describes them.
//
//   container = header frame* index trailer
//   header    = "HOLDFAST" version:u8 kind:u8 protection:u8 0:u8 0:u32 id:16 bytes
//   frame     = stored bytes (compressed), check:16 bytes
//   index     = a frame that lists codec and sizes of the others
//   trailer   = index stored size:u32, index raw size:u32, index codec:u8 0:u8*3, "HOLDEND\n"
//
// Packs, map shards, backup maps and WAL files are all containers; docs/format.md has the bytes.
//
// Each frame stands on its own: any of them can be read, checked and decompressed without the
// others. In a sealed container the check is the AES-256-GCM tag under a key derived from the
// repository key, the container's id, its kind and its name, with the frame's number as nonce: a
// frame in another place, or an object under another name, does not open. Without encryption the
// check is XXH3-128 over the same things, which finds accidents but not intent.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/compress.h"
#include "base/seal.h"
#include "repository/ids.h"
#include "store/object_store.h"

namespace holdfast::repository {

enum class Kind : std::uint8_t {
  pack = 1,
  map_shard = 2,
  backup_map = 3,
  wal_file = 4,
  wal_slice = 5,
  file_set = 6
};

/// No frame holds more than this before compression.
constexpr std::size_t max_frame_bytes = 4 << 20;

/// What protects a repository's frames: the repository key, or nothing but checks.
struct Protection {
  std::optional<base::Secret> key;
};

struct FrameInfo {
  std::uint64_t offset = 0;  ///< of its stored bytes in the container
  std::uint32_t stored = 0;  ///< without the check
  std::uint32_t raw = 0;
  base::Codec codec = base::Codec::raw;
};

/// Seals or checks the frames of one container. Belongs to one thread.
class FrameGuard {
 public:
  FrameGuard(const Protection& protection, Kind kind, const ObjectId& id, std::string_view name);

  static constexpr std::size_t check_size = base::seal_tag_size;
  bool is_sealed() const { return sealer_.has_value(); }
  /// Turns `body` into its stored form in place and writes its check.
  void close(std::uint32_t number, const FrameInfo& frame, base::MutableView body,
             base::MutableView check);
  /// The reverse; false if anything is not as it was written.
  [[nodiscard]] bool open(std::uint32_t number, const FrameInfo& frame, base::MutableView body,
                          base::View check);

 private:
  std::optional<base::Sealer> sealer_;
  base::Bytes context_;
};

/// Writes one container. Belongs to one thread.
class ContainerWriter {
 public:
  /// The object will be `directory`/`name`. That full name is part of what is sealed: an object of
  /// another cluster or system does not open here, whatever it is called.
  ContainerWriter(store::ObjectStore& store, const std::string& directory, const std::string& name,
                  Kind kind, const ObjectId& id, const Protection& protection);

  /// Compresses and adds one frame; returns its number.
  std::uint32_t add(base::View raw, base::Compressor& compressor);
  /// Adds a frame that was compressed elsewhere; `body` is used up.
  std::uint32_t add_compressed(base::Codec codec, std::size_t raw_size, base::MutableView body);

  std::uint32_t frames() const { return static_cast<std::uint32_t>(frames_.size()); }
  std::uint64_t stored_bytes() const { return offset_; }

  /// Writes index and trailer and commits the object. False if the name exists already.
  [[nodiscard]] bool commit();

 private:
  std::unique_ptr<store::ObjectWriter> object_;
  FrameGuard guard_;
  std::vector<FrameInfo> frames_;
  std::uint64_t offset_ = 0;
  base::Bytes scratch_;
};

/// Reads one container. Whatever is not as it was written is Error(corrupt) that names the object;
/// if the index does not open, the key may be the wrong one, and the hint says so. Belongs to one
/// thread.
class ContainerReader {
 public:
  /// nullopt if there is no such object. With `expected_id`, another id in the header is corrupt.
  static std::optional<ContainerReader> open(store::ObjectStore& store,
                                             const std::string& directory, const std::string& name,
                                             Kind kind, const Protection& protection,
                                             const std::optional<ObjectId>& expected_id = {});

  const std::vector<FrameInfo>& frames() const { return frames_; }
  const ObjectId& id() const { return id_; }
  std::uint64_t size() const { return object_->size(); }

  /// Fills `out` with frame `number`, decompressed.
  void read(std::uint32_t number, base::Decompressor& decompressor, base::Bytes& out);
  /// Reads the stored bytes of `count` frames from `first` with one request; then decode() each.
  void fetch(std::uint32_t first, std::uint32_t count);
  /// Decompresses a frame that fetch() brought; each may be decoded once.
  void decode(std::uint32_t number, base::Decompressor& decompressor, base::MutableView out);
  /// All frames, one after the other.
  base::Bytes read_all(base::Decompressor& decompressor);

 private:
  ContainerReader(std::unique_ptr<store::ObjectReader> object, std::string full_name,
                  const ObjectId& id, FrameGuard guard);
  void read_index();
  [[noreturn]] void corrupt(std::string_view why) const;

  std::unique_ptr<store::ObjectReader> object_;
  std::string full_name_;
  ObjectId id_;
  FrameGuard guard_;
  std::vector<FrameInfo> frames_;
  base::Bytes fetched_;
  std::uint64_t fetched_at_ = 0;
};

}  // namespace holdfast::repository
