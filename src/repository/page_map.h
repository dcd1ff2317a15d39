#pragma once

// Where the pages of files are: the part of a backup that makes it complete by itself.
//
// Every file is a row of 8 KiB pages; the last one may be shorter. A stored page has a slot: packs
// are divided into slots of one page each, 32 to a frame, so slot 70 is page 6 of frame 2. A run
// says that consecutive pages of a file are in consecutive slots of one pack (also across frames),
// or that they are all zero and so are stored nowhere. A page map knows files, pages and packs,
// nothing of PostgreSQL.
//
// A map is cut into shards: consecutive files, in the order of their paths. A shard says first
// which packs it refers to, so that a sweep can read that frame alone. Shards are never changed; a
// later backup refers to those that still hold and writes the others anew.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "repository/container.h"

namespace holdfast::repository {

constexpr std::size_t page_bytes = 8192;
constexpr std::uint32_t pages_per_frame = 32;
constexpr std::size_t frame_bytes = page_bytes * pages_per_frame;

/// A place for one page in a pack: frame * pages_per_frame + page in the frame.
struct Slot {
  std::uint32_t value = 0;
  std::uint32_t frame() const { return value / pages_per_frame; }
  std::uint32_t page() const { return value % pages_per_frame; }
  auto operator<=>(const Slot&) const = default;
};

/// Consecutive pages of a file: in consecutive slots of a pack, or (no pack) all zero.
struct Run {
  std::uint64_t pages = 0;
  std::optional<PackId> pack;
  Slot slot;
  bool operator==(const Run&) const = default;
};

/// Adds a run at the end of `runs`, as part of the last one if it continues that.
void append_run(std::vector<Run>& runs, const Run& run);

struct FileEntry {
  std::string path;         ///< relative, as the source names it
  std::uint64_t size = 0;   ///< bytes
  std::uint32_t mode = 0;   ///< permission bits
  std::string owner;        ///< "user:group" by name, or by number where there is no name
  std::uint64_t inode = 0;  ///< identity of the file at the source: another one is another file
  std::int64_t birth = 0;
  std::vector<Run> runs;  ///< from page 0 on; they cover the file exactly
  /// Keyed hash of each page, as in a pack's description: of files that the next backup can only
  /// compare by content. Empty for all others.
  std::vector<std::uint64_t> hashes;
  bool operator==(const FileEntry&) const = default;
};
std::uint64_t page_count(std::uint64_t size);
/// The runs of `pages` pages from page `first` on.
std::vector<Run> part_of(const std::vector<Run>& runs, std::uint64_t first, std::uint64_t pages);

/// The order of files in a map: by the names on the way, one after the other, each by byte value
/// (so "log/a" comes before "log.1"). It is the order in which a walk finds them.
bool comes_before(std::string_view a, std::string_view b);

/// One shard, in memory.
struct Shard {
  std::vector<FileEntry> files;
};

/// A pack that a shard refers to, and how many of its pages the shard's files have there.
struct PackUse {
  PackId pack;
  std::uint64_t pages = 0;
  bool operator==(const PackUse&) const = default;
};

/// The two parts of a shard: the packs it refers to, and the files. Throws Error(corrupt) when
/// decoding anything that is not exactly what encode made: bounds, order, coverage, everything.
struct EncodedShard {
  base::Bytes packs;
  base::Bytes files;
};
EncodedShard encode(const Shard& shard);
std::vector<PackUse> decode_packs(base::View packs);
Shard decode_shard(base::View packs, base::View files);

/// What a backup's map says of one of its shards.
struct ShardReference {
  ShardId id;
  std::string first_path;
  std::string last_path;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;  ///< sum of the sizes of its files
  auto operator<=>(const ShardReference&) const = default;
};

struct DirectoryEntry {
  std::string path;
  std::uint32_t mode = 0;
  std::string owner;
};

/// A file that is part of a backup by its content, not by its pages: backup_label, tablespace_map
/// and configuration that lives outside the data directory.
struct Attachment {
  std::string name;
  base::Bytes content;
};

struct LinkedDirectory {
  std::string path;      ///< relative: "pg_tblspc/16390"
  std::string location;  ///< where it led at the source
};

/// The map of a whole backup: everything but the files, and the list of shards that hold those.
struct BackupMap {
  std::vector<DirectoryEntry> directories;  ///< parents before children
  std::vector<LinkedDirectory> links;
  std::vector<Attachment> attachments;
  std::vector<ShardReference> shards;  ///< in path order
  const Attachment* attachment(std::string_view name) const;
};
base::Bytes encode(const BackupMap& map);
BackupMap decode_backup_map(base::View bytes);

/// A relative path that stays below where it is put: no "..", no leading "/", no empty part.
/// Checked for every path that comes out of a repository, before anything is written.
bool is_safe_path(std::string_view path);

}  // namespace holdfast::repository
