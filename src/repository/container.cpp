#include "repository/container.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "base/hash.h"

namespace holdfast::repository {

namespace {

using base::Bytes;
using base::Code;

constexpr std::string_view header_magic = "HOLDFAST";
constexpr std::string_view trailer_magic = "HOLDEND\n";
constexpr std::uint8_t format_version = 1;
constexpr std::size_t header_size = 32;
constexpr std::size_t trailer_size = 20;
/// The index is sealed under a number that no frame has.
constexpr std::uint32_t index_number = 0xffffffff;

Bytes header_of(Kind kind, bool sealed, const ObjectId& id) {
  base::ByteWriter out;
  out.raw(base::view(header_magic));
  out.u8(format_version);
  out.u8(static_cast<std::uint8_t>(kind));
  out.u8(sealed ? 1 : 0);
  out.u8(0);
  out.u32(0);
  out.raw(id.bytes);
  return out.take();
}

}  // namespace

FrameGuard::FrameGuard(const Protection& protection, Kind kind, const ObjectId& id,
                       std::string_view name) {
  const std::string purpose = fmt::format("holdfast container {} {}", static_cast<int>(kind), name);
  if (protection.key) {
    sealer_.emplace(base::derive(*protection.key, id.bytes, purpose));
  }
  context_ = base::copy(id.bytes);
  const base::View tail = base::view(purpose);
  context_.insert(context_.end(), tail.begin(), tail.end());
}

namespace {

std::array<std::uint8_t, 5> associated_data(const FrameInfo& frame) {
  std::array<std::uint8_t, 5> data{};
  data[0] = static_cast<std::uint8_t>(frame.codec);
  base::store(data.data() + 1, frame.raw);
  return data;
}

std::array<std::uint8_t, 16> plain_check(std::uint32_t number, const FrameInfo& frame,
                                         base::View body, base::View context) {
  const base::Hash128 content = base::hash128(body);
  base::ByteWriter all;
  all.u64(content.low);
  all.u64(content.high);
  all.u32(number);
  all.raw(associated_data(frame));
  all.raw(context);
  const base::Hash128 hash = base::hash128(all.bytes());
  std::array<std::uint8_t, 16> check{};
  base::store(check.data(), hash.low);
  base::store(check.data() + 8, hash.high);
  return check;
}

}  // namespace

void FrameGuard::close(std::uint32_t number, const FrameInfo& frame, base::MutableView body,
                       base::MutableView check) {
  if (sealer_) {
    sealer_->seal(number, associated_data(frame), body, check);
  } else {
    const auto made = plain_check(number, frame, body, context_);
    std::copy(made.begin(), made.end(), check.begin());
  }
}

bool FrameGuard::open(std::uint32_t number, const FrameInfo& frame, base::MutableView body,
                      base::View check) {
  if (sealer_) return sealer_->open(number, associated_data(frame), body, check);
  return base::same_bytes(plain_check(number, frame, body, context_), check);
}

ContainerWriter::ContainerWriter(store::ObjectStore& store, const std::string& directory,
                                 const std::string& name, Kind kind, const ObjectId& id,
                                 const Protection& protection)
    : object_(store.create(directory + "/" + name)),
      guard_(protection, kind, id, directory + "/" + name) {
  const Bytes header = header_of(kind, protection.key.has_value(), id);
  object_->append(header);
  offset_ = header.size();
}

std::uint32_t ContainerWriter::add(base::View raw, base::Compressor& compressor) {
  scratch_.clear();
  const base::Codec codec = compressor.compress(raw, scratch_);
  return add_compressed(codec, raw.size(), scratch_);
}

std::uint32_t ContainerWriter::add_compressed(base::Codec codec, std::size_t raw_size,
                                              base::MutableView body) {
  if (raw_size > max_frame_bytes || frames_.size() >= index_number) {
    base::fail(Code::internal, "a frame of {} bytes is too large", raw_size);
  }
  const auto number = static_cast<std::uint32_t>(frames_.size());
  const FrameInfo frame{offset_, static_cast<std::uint32_t>(body.size()),
                        static_cast<std::uint32_t>(raw_size), codec};
  std::array<std::uint8_t, FrameGuard::check_size> check{};
  guard_.close(number, frame, body, check);
  object_->append(body);
  object_->append(check);
  offset_ += body.size() + check.size();
  frames_.push_back(frame);
  return number;
}

bool ContainerWriter::commit() {
  base::ByteWriter index;
  index.varint(frames_.size());
  for (const FrameInfo& frame : frames_) {
    index.u8(static_cast<std::uint8_t>(frame.codec));
    index.varint(frame.raw);
    index.varint(frame.stored);
  }
  base::Compressor compressor(base::Compressor::Effort::dense);
  Bytes body;
  FrameInfo info{offset_, 0, static_cast<std::uint32_t>(index.size()), base::Codec::raw};
  info.codec = compressor.compress(index.bytes(), body);
  info.stored = static_cast<std::uint32_t>(body.size());
  std::array<std::uint8_t, FrameGuard::check_size> check{};
  guard_.close(index_number, info, body, check);

  base::ByteWriter end;
  end.raw(body);
  end.raw(check);
  end.u32(info.stored);
  end.u32(info.raw);
  end.u8(static_cast<std::uint8_t>(info.codec));
  end.raw(std::array<std::uint8_t, 3>{});
  end.raw(base::view(trailer_magic));
  object_->append(end.bytes());
  offset_ += end.size();
  return object_->commit();
}

ContainerReader::ContainerReader(std::unique_ptr<store::ObjectReader> object, std::string full_name,
                                 const ObjectId& id, FrameGuard guard)
    : object_(std::move(object)),
      full_name_(std::move(full_name)),
      id_(id),
      guard_(std::move(guard)) {}

void ContainerReader::corrupt(std::string_view why) const {
  throw base::Error(Code::corrupt, fmt::format("object \"{}\" is corrupt: {}", full_name_, why),
                    "run `holdfast verify` to see which backups need it");
}

std::optional<ContainerReader> ContainerReader::open(store::ObjectStore& store,
                                                     const std::string& directory,
                                                     const std::string& name, Kind kind,
                                                     const Protection& protection,
                                                     const std::optional<ObjectId>& expected_id) {
  const std::string full_name = directory + "/" + name;
  auto object = store.open(full_name);
  if (!object) return std::nullopt;
  const auto complain = [&](std::string_view why) {
    throw base::Error(Code::corrupt, fmt::format("object \"{}\" is corrupt: {}", full_name, why),
                      "run `holdfast verify` to see which backups need it");
  };
  if (object->size() < header_size + trailer_size + FrameGuard::check_size) complain("it is cut");
  std::array<std::uint8_t, header_size> header{};
  object->read(0, header);
  if (base::text(base::View(header).first(8)) != header_magic) {
    complain("it does not begin as an object of Holdfast does");
  }
  if (header[8] > format_version) {
    throw base::Error(Code::unsupported,
                      fmt::format("cannot read object \"{}\": its format version {} is newer than "
                                  "this program",
                                  full_name, header[8]),
                      "use a newer holdfast");
  }
  ObjectId id;
  std::copy(header.begin() + 16, header.end(), id.bytes.begin());
  if (!std::equal(header.begin(), header.end(),
                  header_of(kind, protection.key.has_value(), id).begin())) {
    complain("its header is not what it should be");
  }
  if (expected_id && *expected_id != id) complain("it holds another object");
  ContainerReader reader(std::move(object), full_name, id,
                         FrameGuard(protection, kind, id, full_name));
  reader.read_index();
  return reader;
}

void ContainerReader::read_index() {
  const std::uint64_t size = object_->size();
  std::array<std::uint8_t, trailer_size> trailer{};
  object_->read(size - trailer_size, trailer);
  if (base::text(base::View(trailer).subspan(12)) != trailer_magic) corrupt("its end is missing");
  if (trailer[9] != 0 || trailer[10] != 0 || trailer[11] != 0) corrupt("its end is damaged");
  FrameInfo info;
  info.stored = base::load<std::uint32_t>(trailer.data());
  info.raw = base::load<std::uint32_t>(trailer.data() + 4);
  info.codec = static_cast<base::Codec>(trailer[8]);
  constexpr std::size_t around = header_size + trailer_size + FrameGuard::check_size;
  if (info.stored > size - around || info.raw > 256 << 20)
    corrupt("its index has no plausible size");
  info.offset = size - trailer_size - FrameGuard::check_size - info.stored;
  Bytes body(info.stored + FrameGuard::check_size);
  object_->read(info.offset, body);
  const base::MutableView stored = base::MutableView(body).first(info.stored);
  if (!guard_.open(index_number, info, stored, base::View(body).subspan(info.stored))) {
    throw base::Error(
        Code::corrupt,
        fmt::format("object \"{}\" is corrupt: its index does not pass its check", full_name_),
        guard_.is_sealed() ? "it may have been sealed under another key; if the others open, run "
                             "`holdfast verify` to see which backups need this one"
                           : "run `holdfast verify` to see which backups need it");
  }
  Bytes raw(info.raw);
  base::Decompressor().decompress(info.codec, stored, raw);

  base::ByteReader in(raw, full_name_);
  const std::uint64_t count = in.varint_at_most(raw.size() / 3);  // each takes three bytes or more
  frames_.reserve(count);
  std::uint64_t offset = header_size;
  for (std::uint64_t i = 0; i < count; ++i) {
    FrameInfo frame;
    frame.offset = offset;
    frame.codec = static_cast<base::Codec>(in.u8());
    if (frame.codec > base::Codec::lz4) {
      throw base::Error(
          Code::unsupported,
          fmt::format("cannot read object \"{}\": its codec {} is unknown to this program",
                      full_name_, static_cast<int>(frame.codec)),
          "use a newer holdfast");
    }
    frame.raw = static_cast<std::uint32_t>(in.varint_at_most(max_frame_bytes));
    frame.stored = static_cast<std::uint32_t>(in.varint_at_most(
        std::min<std::uint64_t>(size, std::numeric_limits<std::uint32_t>::max())));
    offset += frame.stored + FrameGuard::check_size;
    frames_.push_back(frame);
  }
  in.expect_end();
  if (offset != info.offset) corrupt("its frames do not fill it");
}

void ContainerReader::fetch(std::uint32_t first, std::uint32_t count) {
  if (count == 0 || first + std::uint64_t{count} > frames_.size()) {
    base::fail(Code::corrupt, "object \"{}\" has no frame {}: a page map does not fit to it",
               full_name_, first + count - 1);
  }
  const FrameInfo& last = frames_[first + count - 1];
  fetched_at_ = frames_[first].offset;
  fetched_.resize(last.offset + last.stored + FrameGuard::check_size - fetched_at_);
  object_->read(fetched_at_, fetched_);
}

void ContainerReader::decode(std::uint32_t number, base::Decompressor& decompressor,
                             base::MutableView out) {
  const std::uint64_t end = fetched_at_ + fetched_.size();
  if (number >= frames_.size() || frames_[number].offset < fetched_at_ ||
      frames_[number].offset + frames_[number].stored + FrameGuard::check_size > end) {
    base::fail(Code::internal, "frame {} of object \"{}\" was not fetched", number, full_name_);
  }
  const FrameInfo& frame = frames_[number];
  const std::uint64_t at = frame.offset - fetched_at_;
  const base::MutableView body = base::MutableView(fetched_).subspan(at, frame.stored);
  const base::View check = base::View(fetched_).subspan(at + frame.stored, FrameGuard::check_size);
  if (!guard_.open(number, frame, body, check)) {
    corrupt(fmt::format("frame {} does not pass its check", number));
  }
  decompressor.decompress(frame.codec, body, out);
}

void ContainerReader::read(std::uint32_t number, base::Decompressor& decompressor, Bytes& out) {
  fetch(number, 1);
  out.resize(frames_[number].raw);
  decode(number, decompressor, out);
}

Bytes ContainerReader::read_all(base::Decompressor& decompressor) {
  std::uint64_t total = 0;
  for (const FrameInfo& frame : frames_) total += frame.raw;
  Bytes all(total);
  if (frames_.empty()) return all;
  fetch(0, static_cast<std::uint32_t>(frames_.size()));
  std::uint64_t at = 0;
  for (std::uint32_t number = 0; number < frames_.size(); ++number) {
    const std::uint32_t raw = frames_[number].raw;
    decode(number, decompressor, base::MutableView(all).subspan(at, raw));
    at += raw;
  }
  return all;
}

}  // namespace holdfast::repository
