#include "repository/page_map.h"

#include <algorithm>
#include <limits>
#include <map>

#include "base/error.h"

namespace holdfast::repository {

using base::ByteReader;
using base::Bytes;
using base::ByteWriter;

namespace {

/// A file can have no more pages than slots can be counted with; PostgreSQL's have 131072.
constexpr std::uint64_t max_pages = std::uint64_t{1} << 40;

/// Strings that repeat (owners), by number.
class StringTable {
 public:
  std::uint64_t number_of(const std::string& text) {
    const auto [entry, fresh] = numbers_.try_emplace(text, texts_.size());
    if (fresh) texts_.push_back(text);
    return entry->second;
  }
  void write(ByteWriter& out) const {
    out.varint(texts_.size());
    for (const std::string& text : texts_) out.string(text);
  }
  static std::vector<std::string> read(ByteReader& in) {
    std::vector<std::string> texts(in.varint_at_most(in.left()));
    for (std::string& text : texts) text = in.string();
    return texts;
  }

 private:
  std::map<std::string, std::uint64_t> numbers_;
  std::vector<std::string> texts_;
};

const std::string& entry_of(const std::vector<std::string>& table, std::uint64_t number,
                            const ByteReader& in) {
  if (number >= table.size()) in.corrupt("it refers to a name that it does not have");
  return table[number];
}

std::size_t common_prefix(std::string_view a, std::string_view b) {
  const std::size_t limit = std::min(a.size(), b.size());
  std::size_t length = 0;
  while (length < limit && a[length] == b[length]) ++length;
  return length;
}

void write_path(ByteWriter& out, std::string_view path, std::string_view previous) {
  const std::size_t shared = common_prefix(path, previous);
  out.varint(shared);
  out.string(path.substr(shared));
}

std::string read_path(ByteReader& in, std::string_view previous) {
  const std::uint64_t shared = in.varint_at_most(previous.size());
  std::string path = std::string(previous.substr(0, shared)) + in.string();
  if (!is_safe_path(path)) in.corrupt("it holds a path that leads elsewhere");
  return path;
}

/// Runs as numbers: pages, then 0 for zero pages or the pack's number + 1, then the slot as the
/// difference to where the run before ended, which is mostly 0.
void write_runs(ByteWriter& out, const std::vector<Run>& runs,
                const std::map<PackId, std::uint64_t>& packs) {
  std::int64_t expected_slot = 0;
  out.varint(runs.size());
  for (const Run& run : runs) {
    out.varint(run.pages);
    out.varint(run.pack ? packs.at(*run.pack) + 1 : 0);
    if (!run.pack) continue;
    out.signed_varint(std::int64_t{run.slot.value} - expected_slot);
    expected_slot = std::int64_t{run.slot.value} + static_cast<std::int64_t>(run.pages);
  }
}

std::vector<Run> read_runs(ByteReader& in, const std::vector<PackUse>& packs,
                           std::uint64_t file_size) {
  const std::uint64_t pages = page_count(file_size);
  std::vector<Run> runs(in.varint_at_most(in.left()));
  std::int64_t expected_slot = 0;
  std::uint64_t covered = 0;
  for (Run& run : runs) {
    run.pages = in.varint_at_most(pages - covered);
    if (run.pages == 0) in.corrupt("it holds an empty run");
    covered += run.pages;
    const std::uint64_t pack = in.varint_at_most(packs.size());
    if (pack == 0) continue;
    run.pack = packs[pack - 1].pack;
    const std::int64_t difference = in.signed_varint();
    constexpr std::int64_t limit = std::numeric_limits<std::uint32_t>::max();
    if (difference < -limit || difference > limit) in.corrupt("a slot is out of range");
    const std::int64_t slot = expected_slot + difference;
    expected_slot = slot + static_cast<std::int64_t>(run.pages);
    if (slot < 0 || expected_slot > limit) in.corrupt("a slot is out of range");
    run.slot = {static_cast<std::uint32_t>(slot)};
  }
  if (covered != pages) in.corrupt("its runs do not cover a file");
  return runs;
}

void read_hashes(ByteReader& in, FileEntry& file) {
  const std::uint8_t has_hashes = in.u8();
  if (has_hashes > 1) in.corrupt("a file neither has hashes nor has none");
  if (has_hashes == 0) return;
  const std::uint64_t pages = page_count(file.size);
  if (pages == 0 || pages > in.left() / 8) in.corrupt("its hashes do not cover a file");
  file.hashes.resize(pages);
  for (std::uint64_t& hash : file.hashes) hash = in.u64();
}

/// A map that does not decode is as good as none: what decode_shard would refuse is not written.
void check_before_encoding(const FileEntry& file, std::string_view previous) {
  constexpr std::uint64_t last_slot = std::numeric_limits<std::uint32_t>::max();
  std::uint64_t covered = 0;
  bool good = is_safe_path(file.path) && (previous.empty() || comes_before(previous, file.path)) &&
              file.mode <= 07777 && file.size <= max_pages * page_bytes;
  for (const Run& run : file.runs) {
    covered += run.pages;
    good = good && run.pages > 0 && (!run.pack || run.pages <= last_slot - run.slot.value);
  }
  good = good && (file.hashes.empty() || file.hashes.size() == page_count(file.size));
  if (!good || covered != page_count(file.size)) {
    base::fail(base::Code::internal, "the page map of \"{}\" is not one that could be read",
               file.path);
  }
}

}  // namespace

std::uint64_t page_count(std::uint64_t size) {
  return size / page_bytes + (size % page_bytes != 0);
}

std::vector<Run> part_of(const std::vector<Run>& runs, std::uint64_t first, std::uint64_t pages) {
  std::vector<Run> part;
  for (const Run& run : runs) {
    if (pages == 0) break;
    if (first >= run.pages) {
      first -= run.pages;
      continue;
    }
    const std::uint64_t count = std::min(run.pages - first, pages);
    Run piece{count, run.pack, run.slot};
    if (run.pack) piece.slot.value += static_cast<std::uint32_t>(first);
    append_run(part, piece);
    pages -= count;
    first = 0;
  }
  return part;
}

void append_run(std::vector<Run>& runs, const Run& run) {
  if (run.pages == 0) return;
  if (!runs.empty()) {
    Run& last = runs.back();
    if (last.pack == run.pack && (!run.pack || last.slot.value + last.pages == run.slot.value)) {
      last.pages += run.pages;
      return;
    }
  }
  runs.push_back(run);
}

bool comes_before(std::string_view a, std::string_view b) {
  // A slash ends a name, and a name comes before every longer one that begins with it.
  const auto rank = [](char c) { return c == '/' ? 0 : int{static_cast<unsigned char>(c)} + 1; };
  return std::ranges::lexicographical_compare(a, b, {}, rank, rank);
}

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != std::string_view::npos)
    return false;
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

EncodedShard encode(const Shard& shard) {
  std::map<PackId, std::uint64_t> packs;  // first their pages, then their numbers
  for (const FileEntry& file : shard.files) {
    for (const Run& run : file.runs) {
      if (run.pack) packs[*run.pack] += run.pages;
    }
  }
  ByteWriter pack_list;
  pack_list.varint(packs.size());
  std::uint64_t next = 0;
  for (auto& [id, number] : packs) {
    pack_list.raw(id.bytes);
    pack_list.varint(number);
    number = next++;
  }
  StringTable owners;
  ByteWriter files;
  files.varint(shard.files.size());
  std::string_view previous;
  for (const FileEntry& file : shard.files) {
    check_before_encoding(file, previous);
    write_path(files, file.path, previous);
    previous = file.path;
    files.varint(file.size);
    files.varint(file.mode);
    files.varint(owners.number_of(file.owner));
    files.varint(file.inode);
    files.signed_varint(file.birth);
    write_runs(files, file.runs, packs);
    files.u8(file.hashes.empty() ? 0 : 1);
    for (const std::uint64_t hash : file.hashes) files.u64(hash);
  }
  ByteWriter all;
  owners.write(all);
  all.raw(files.bytes());
  return {pack_list.take(), all.take()};
}

std::vector<PackUse> decode_packs(base::View bytes) {
  ByteReader in(bytes, "a map shard's list of packs");
  std::vector<PackUse> packs(in.varint_at_most(bytes.size() / 16));
  for (PackUse& use : packs) {
    const base::View id = in.raw(use.pack.bytes.size());
    std::copy(id.begin(), id.end(), use.pack.bytes.begin());
    use.pages = in.varint();
    if (&use != packs.data() && use.pack <= (&use - 1)->pack)
      in.corrupt("its packs are not in order");
  }
  in.expect_end();
  return packs;
}

Shard decode_shard(base::View pack_bytes, base::View bytes) {
  const std::vector<PackUse> packs = decode_packs(pack_bytes);
  ByteReader in(bytes, "a map shard");
  const std::vector<std::string> owners = StringTable::read(in);
  Shard shard;
  shard.files.resize(in.varint_at_most(in.left()));
  std::map<PackId, std::uint64_t> used;
  std::string previous;
  for (FileEntry& file : shard.files) {
    file.path = read_path(in, previous);
    if (!previous.empty() && !comes_before(previous, file.path))
      in.corrupt("its files are not in order");
    previous = file.path;
    file.size = in.varint_at_most(max_pages * page_bytes);
    file.mode = static_cast<std::uint32_t>(in.varint_at_most(07777));
    file.owner = entry_of(owners, in.varint(), in);
    file.inode = in.varint();
    file.birth = in.signed_varint();
    file.runs = read_runs(in, packs, file.size);
    read_hashes(in, file);
    for (const Run& run : file.runs) {
      if (run.pack) used[*run.pack] += run.pages;
    }
  }
  in.expect_end();
  if (!std::ranges::all_of(packs, [&](const PackUse& use) { return used[use.pack] == use.pages; }))
    in.corrupt("its files do not use its packs as it says");
  return shard;
}

const Attachment* BackupMap::attachment(std::string_view name) const {
  for (const Attachment& each : attachments) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

Bytes encode(const BackupMap& map) {
  ByteWriter out;
  out.varint(map.directories.size());
  for (const DirectoryEntry& directory : map.directories) {
    out.string(directory.path);
    out.varint(directory.mode);
    out.string(directory.owner);
  }
  out.varint(map.links.size());
  for (const LinkedDirectory& link : map.links) {
    out.string(link.path);
    out.string(link.location);
  }
  out.varint(map.attachments.size());
  for (const Attachment& attachment : map.attachments) {
    out.string(attachment.name);
    out.string(base::text(attachment.content));
  }
  out.varint(map.shards.size());
  for (const ShardReference& shard : map.shards) {
    out.raw(shard.id.bytes);
    out.string(shard.first_path);
    out.string(shard.last_path);
    out.varint(shard.files);
    out.varint(shard.bytes);
  }
  return out.take();
}

BackupMap decode_backup_map(base::View bytes) {
  ByteReader in(bytes, "a backup's map");
  const auto safe_path = [&in] {
    std::string path = in.string();
    if (!is_safe_path(path)) in.corrupt("it holds a path that leads elsewhere");
    return path;
  };
  BackupMap map;
  map.directories.resize(in.varint_at_most(in.left()));
  for (DirectoryEntry& directory : map.directories) {
    directory.path = safe_path();
    directory.mode = static_cast<std::uint32_t>(in.varint_at_most(07777));
    directory.owner = in.string();
  }
  map.links.resize(in.varint_at_most(in.left()));
  for (LinkedDirectory& link : map.links) {
    link.path = safe_path();
    link.location = in.string();
  }
  map.attachments.resize(in.varint_at_most(in.left()));
  for (Attachment& attachment : map.attachments) {
    attachment.name = safe_path();
    attachment.content = base::copy(base::view(in.string()));
  }
  map.shards.resize(in.varint_at_most(in.left()));
  std::string previous;
  for (ShardReference& shard : map.shards) {
    const base::View id = in.raw(shard.id.bytes.size());
    std::copy(id.begin(), id.end(), shard.id.bytes.begin());
    shard.first_path = safe_path();
    shard.last_path = safe_path();
    shard.files = in.varint();
    shard.bytes = in.varint();
    if ((!previous.empty() && !comes_before(previous, shard.first_path)) ||
        comes_before(shard.last_path, shard.first_path)) {
      in.corrupt("its shards are not in order");
    }
    previous = shard.last_path;
  }
  in.expect_end();
  return map;
}

}  // namespace holdfast::repository
