#pragma once

// Packs: where pages are kept.
//
// A pack is a container whose frames hold 32 pages each (the last one may hold fewer), followed by
// frames that describe them: which pages of which files these are, at which stamp, and a hash of
// each. The description is not needed to read a page. It is what a map can be rebuilt from when the
// map is lost, and what a comparison by content reads (restore --delta).

#include <memory>
#include <string>
#include <vector>

#include "base/compress.h"
#include "base/hash.h"
#include "repository/page_map.h"

namespace holdfast::repository {

/// A pack is closed once it has this many stored bytes.
constexpr std::uint64_t pack_target_bytes = 32 << 20;

std::string pack_name(const PackId& id);  ///< "packs/0193..."

/// Which pages of a file stand in consecutive slots.
struct Extent {
  std::uint32_t file = 0;  ///< index into PackDescription::files
  std::uint64_t first_page = 0;
  std::uint32_t pages = 0;
};

struct PackedFile {
  std::string path;
  std::uint64_t size = 0;  ///< of the whole file, when the pack was written
  std::uint32_t mode = 0;
  std::string owner;
};

/// A file whose pages are elsewhere, or nowhere: it was empty, all zero, or equal to one stored
/// before.
struct OtherFile {
  PackedFile file;
  std::vector<Run> runs;
};

/// What a pack says of its own pages, and of files that were found on the way but gave it none.
struct PackDescription {
  std::string backup;       ///< id of the backup that wrote it
  std::string previous;     ///< id of the one that it was compared with; empty if with none
  std::uint64_t stamp = 0;  ///< pages are at least as new as this (the backup's start)
  std::vector<PackedFile> files;
  std::vector<Extent> extents;        ///< in slot order, without holes, from slot 0
  std::vector<std::uint64_t> hashes;  ///< keyed 64-bit hash of each slot's page
  std::vector<OtherFile> others;
};

/// Writes pages into packs, one pack after the other. Belongs to one thread. The packs' ids are new
/// for each attempt, so no key and nonce are ever used twice (TRAPS EK9).
class PackWriter {
 public:
  struct Options {
    std::string backup;
    std::string previous;
    std::uint64_t stamp = 0;
  };
  PackWriter(store::ObjectStore& store, std::string directory, const Protection& protection,
             const base::KeyedHash& hash, Options options);

  /// Pages added from now on belong to this file.
  void begin_file(PackedFile file);
  /// Stores a page (`page` may be short at the end of a file; the rest of its slot is zero) of the
  /// current file, as the page `number` of it. Returns where it will be.
  struct Place {
    PackId pack;
    Slot slot;
  };
  Place add(base::View page, std::uint64_t number);
  /// Only describes a file that has no pages of its own here, so that its map entry can be rebuilt.
  /// That alone makes no pack: what is noted goes into the next one that has pages, if there is
  /// one.
  void note(OtherFile file);
  /// Commits what is open. Pages are durable only after this.
  void finish();

  struct PackSummary {
    PackId id;
    std::uint64_t bytes = 0;
  };
  /// The packs that were committed, with their sizes.
  const std::vector<PackSummary>& packs() const { return packs_; }
  std::uint64_t stored_bytes() const;

 private:
  void open_pack();
  void close_frame();
  void close_pack();

  store::ObjectStore& store_;
  std::string directory_;
  const Protection& protection_;
  const base::KeyedHash& hash_;
  Options options_;
  base::Compressor compressor_;
  base::Bytes frame_;  ///< pages of the open frame
  PackedFile file_;
  bool file_is_described_ = false;
  PackId id_;
  std::unique_ptr<ContainerWriter> container_;
  PackDescription description_;
  std::vector<OtherFile> noted_;  ///< while no pack is open
  std::uint32_t slots_ = 0;
  std::vector<PackSummary> packs_;
};

/// Reads pages out of one pack. Belongs to one thread.
class PackReader {
 public:
  /// Throws Error(corrupt) if the pack is not there: a map named it, so it must be.
  PackReader(store::ObjectStore& store, const std::string& directory, const Protection& protection,
             const PackId& id);

  std::uint32_t data_frames() const { return data_frames_; }
  /// Bytes of pages in a data frame: a multiple of page_bytes, at most frame_bytes.
  std::uint32_t raw_size(std::uint32_t frame) const { return container_.frames()[frame].raw; }
  std::uint64_t stored_size(std::uint32_t frame) const { return container_.frames()[frame].stored; }
  /// Throws Error(corrupt) if these are not all frames of pages.
  void fetch(std::uint32_t first, std::uint32_t count);
  /// Fills `out`, which must have raw_size(frame) bytes.
  void decode(std::uint32_t frame, base::Decompressor& decompressor, base::MutableView out) {
    container_.decode(frame, decompressor, out);
  }
  PackDescription description(base::Decompressor& decompressor);
  std::uint64_t size() const { return container_.size(); }

 private:
  ContainerReader container_;
  std::uint32_t data_frames_ = 0;
};

}  // namespace holdfast::repository
