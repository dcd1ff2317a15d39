#include "repository/pack.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace holdfast::repository {

using base::ByteReader;
using base::Bytes;
using base::ByteWriter;

namespace {

/// The last frame of a pack: how many of the frames before it hold pages; all between describe
/// them.
constexpr std::size_t counts_size = 4;

void write_file(ByteWriter& out, const PackedFile& file) {
  out.string(file.path);
  out.varint(file.size);
  out.varint(file.mode);
  out.string(file.owner);
}

PackedFile read_file(ByteReader& in) {
  PackedFile file;
  file.path = in.string();
  if (!is_safe_path(file.path)) in.corrupt("it holds a path that leads elsewhere");
  file.size = in.varint();
  file.mode = static_cast<std::uint32_t>(in.varint_at_most(07777));
  file.owner = in.string();
  return file;
}

void write_other(ByteWriter& out, const OtherFile& other) {
  write_file(out, other.file);
  out.varint(other.runs.size());
  for (const Run& run : other.runs) {
    out.varint(run.pages);
    out.u8(run.pack ? 1 : 0);
    if (!run.pack) continue;
    out.raw(run.pack->bytes);
    out.varint(run.slot.value);
  }
}

OtherFile read_other(ByteReader& in) {
  OtherFile other;
  other.file = read_file(in);
  other.runs.resize(in.varint_at_most(in.left()));
  std::uint64_t left = page_count(other.file.size);
  for (Run& run : other.runs) {
    run.pages = in.varint_at_most(left);
    if (run.pages == 0) in.corrupt("it holds an empty run");
    left -= run.pages;
    const std::uint8_t is_stored = in.u8();
    if (is_stored > 1) in.corrupt("a run is neither stored nor zero");
    if (is_stored == 0) continue;
    PackId pack;
    const base::View id = in.raw(pack.bytes.size());
    std::copy(id.begin(), id.end(), pack.bytes.begin());
    run.pack = pack;
    run.slot = {
        static_cast<std::uint32_t>(in.varint_at_most(std::numeric_limits<std::uint32_t>::max()))};
  }
  if (left != 0) in.corrupt("its runs do not cover a file");
  return other;
}

Bytes encode(const PackDescription& description) {
  ByteWriter out;
  out.string(description.backup);
  out.string(description.previous);
  out.u64(description.stamp);
  out.varint(description.files.size());
  for (const PackedFile& file : description.files) write_file(out, file);
  out.varint(description.extents.size());
  for (const Extent& extent : description.extents) {
    out.varint(extent.file);
    out.varint(extent.first_page);
    out.varint(extent.pages);
  }
  out.varint(description.hashes.size());
  for (const std::uint64_t hash : description.hashes) out.u64(hash);
  out.varint(description.others.size());
  for (const OtherFile& other : description.others) write_other(out, other);
  return out.take();
}

PackDescription decode_description(base::View bytes) {
  ByteReader in(bytes, "a pack's description");
  PackDescription description;
  description.backup = in.string();
  description.previous = in.string();
  description.stamp = in.u64();
  description.files.resize(in.varint_at_most(in.left()));
  for (PackedFile& file : description.files) file = read_file(in);
  description.extents.resize(in.varint_at_most(in.left()));
  std::uint64_t slots = 0;
  for (Extent& extent : description.extents) {
    const std::uint64_t file = in.varint();
    if (file >= description.files.size()) in.corrupt("an extent names a file that it has not");
    extent.file = static_cast<std::uint32_t>(file);
    extent.first_page = in.varint();
    extent.pages =
        static_cast<std::uint32_t>(in.varint_at_most(std::numeric_limits<std::uint32_t>::max()));
    slots += extent.pages;
  }
  description.hashes.resize(in.varint_at_most(in.left() / 8));
  for (std::uint64_t& hash : description.hashes) hash = in.u64();
  description.others.resize(in.varint_at_most(in.left()));
  for (OtherFile& other : description.others) other = read_other(in);
  in.expect_end();
  if (slots != description.hashes.size()) in.corrupt("it does not describe each of its pages");
  return description;
}

ContainerReader open_pack_container(store::ObjectStore& store, const std::string& directory,
                                    const Protection& protection, const PackId& id) {
  auto container =
      ContainerReader::open(store, directory, pack_name(id), Kind::pack, protection, id);
  if (!container) {
    throw base::Error(base::Code::corrupt,
                      fmt::format("pack \"{}/{}\" is missing", directory, pack_name(id)),
                      "run `holdfast verify` to see which backups need it");
  }
  return *std::move(container);
}

}  // namespace

std::string pack_name(const PackId& id) {
  return "packs/" + to_string(id);
}

PackWriter::PackWriter(store::ObjectStore& store, std::string directory,
                       const Protection& protection, const base::KeyedHash& hash, Options options)
    : store_(store),
      directory_(std::move(directory)),
      protection_(protection),
      hash_(hash),
      options_(std::move(options)),
      compressor_(base::Compressor::Effort::fast) {
  frame_.reserve(frame_bytes);
}

void PackWriter::open_pack() {
  static_cast<ObjectId&>(id_) = new_object_id();
  container_ = std::make_unique<ContainerWriter>(store_, directory_, pack_name(id_), Kind::pack,
                                                 id_, protection_);
  description_ = {options_.backup,          options_.previous, options_.stamp, {}, {}, {},
                  std::exchange(noted_, {})};
  file_is_described_ = false;
  slots_ = 0;
}

void PackWriter::begin_file(PackedFile file) {
  file_ = std::move(file);
  file_is_described_ = false;
}

PackWriter::Place PackWriter::add(base::View page, std::uint64_t number) {
  if (!container_) open_pack();
  if (!file_is_described_) {
    description_.files.push_back(file_);
    file_is_described_ = true;
  }
  if (page.size() > page_bytes) {
    base::fail(base::Code::internal, "a page of {} bytes is too large", page.size());
  }
  const std::size_t at = frame_.size();
  frame_.insert(frame_.end(), page.begin(), page.end());
  frame_.resize(at + page_bytes);
  description_.hashes.push_back(hash_.hash64(base::View(frame_).subspan(at)));

  const auto file = static_cast<std::uint32_t>(description_.files.size() - 1);
  auto& extents = description_.extents;
  if (!extents.empty() && extents.back().file == file &&
      extents.back().first_page + extents.back().pages == number) {
    ++extents.back().pages;
  } else {
    extents.push_back({file, number, 1});
  }
  const Place place{id_, {slots_++}};
  if (frame_.size() == frame_bytes) {
    close_frame();
    if (container_->stored_bytes() >= pack_target_bytes) close_pack();
  }
  return place;
}

void PackWriter::note(OtherFile file) {
  (container_ ? description_.others : noted_).push_back(std::move(file));
}

void PackWriter::close_frame() {
  if (frame_.empty()) return;
  container_->add(frame_, compressor_);
  frame_.clear();
}

void PackWriter::close_pack() {
  close_frame();
  const std::uint32_t data_frames = container_->frames();
  const Bytes description = encode(description_);
  for (std::size_t at = 0; at < description.size(); at += max_frame_bytes) {
    container_->add(
        base::View(description).subspan(at, std::min(max_frame_bytes, description.size() - at)),
        compressor_);
  }
  ByteWriter counts;
  counts.u32(data_frames);
  container_->add(counts.bytes(), compressor_);
  if (!container_->commit()) {
    base::fail(base::Code::internal, "pack {} exists already", to_string(id_));
  }
  packs_.push_back({id_, container_->stored_bytes()});
  container_.reset();
}

void PackWriter::finish() {
  if (container_) close_pack();
}

std::uint64_t PackWriter::stored_bytes() const {
  std::uint64_t bytes = container_ ? container_->stored_bytes() : 0;
  for (const PackSummary& pack : packs_) bytes += pack.bytes;
  return bytes;
}

PackReader::PackReader(store::ObjectStore& store, const std::string& directory,
                       const Protection& protection, const PackId& id)
    : container_(open_pack_container(store, directory, protection, id)) {
  const auto& frames = container_.frames();
  const auto refuse = [&](std::string_view why) {
    base::fail(base::Code::corrupt, "pack \"{}/{}\" is corrupt: {}", directory, pack_name(id), why);
  };
  if (frames.empty() || frames.back().raw != counts_size) refuse("it does not say what it holds");
  base::Decompressor decompressor;
  Bytes counts;
  container_.read(static_cast<std::uint32_t>(frames.size() - 1), decompressor, counts);
  data_frames_ = base::load<std::uint32_t>(counts.data());
  if (data_frames_ >= frames.size()) refuse("it does not say what it holds");
  for (std::uint32_t frame = 0; frame < data_frames_; ++frame) {
    const std::uint32_t raw = frames[frame].raw;
    const bool last = frame + 1 == data_frames_;
    if (raw == 0 || raw % page_bytes != 0 || (raw != frame_bytes && (!last || raw > frame_bytes))) {
      refuse("a frame has an impossible size");
    }
  }
}

void PackReader::fetch(std::uint32_t first, std::uint32_t count) {
  if (first + std::uint64_t{count} > data_frames_) {
    base::fail(base::Code::corrupt,
               "pack {} has only {} frames of pages: a page map does not fit to it",
               to_string(container_.id()), data_frames_);
  }
  container_.fetch(first, count);
}

PackDescription PackReader::description(base::Decompressor& decompressor) {
  const auto last = static_cast<std::uint32_t>(container_.frames().size() - 1);
  Bytes all;
  Bytes part;
  for (std::uint32_t frame = data_frames_; frame < last; ++frame) {
    container_.read(frame, decompressor, part);
    all.insert(all.end(), part.begin(), part.end());
  }
  PackDescription described = decode_description(all);
  std::uint64_t bytes = 0;
  for (std::uint32_t frame = 0; frame < data_frames_; ++frame) bytes += raw_size(frame);
  if (described.hashes.size() * page_bytes != bytes) {
    base::fail(base::Code::corrupt, "the description of pack {} does not fit to its pages",
               to_string(container_.id()));
  }
  return described;
}

}  // namespace holdfast::repository
