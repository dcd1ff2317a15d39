#include "repository/file_sets.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/page_map.h"

namespace holdfast::repository {

namespace {

using base::Code;
using nlohmann::json;

/// Behind the kinds of entries.
constexpr std::uint8_t more_content = 4;
constexpr std::uint8_t summary_frame = 5;

std::string local_name(const FileSetName& name) {
  return fmt::format("files/{}/{}", name.backup.text, name.name);
}

json to_json(const FileSetSummary& summary) {
  return {{"path", summary.path},
          {"taken", base::to_iso(summary.taken)},
          {"until", base::to_iso(summary.until)},
          {"entries", summary.entries},
          {"bytes", summary.bytes},
          {"left_out", summary.left_out},
          {"changed", summary.changed}};
}

FileSetSummary parse_summary(const json& document) {
  return {document.at("path"),
          base::from_iso(document.at("taken").get<std::string>()),
          base::from_iso(document.at("until").get<std::string>()),
          document.at("entries"),
          document.at("bytes"),
          document.at("left_out"),
          document.at("changed")};
}

ContainerReader open(const Repository& repository, const ClusterPlace& place,
                     const FileSetName& name) {
  auto found = ContainerReader::open(repository.store(), place.directory(), local_name(name),
                                     Kind::file_set, repository.protection());
  if (found) return std::move(*found);
  throw base::Error(
      Code::not_found,
      fmt::format("cannot find files \"{}\" of backup {}", name.name, name.backup.text),
      "`holdfast files list` shows what there is");
}

}  // namespace

std::string object_of(const ClusterPlace& place, const FileSetName& name) {
  return place.directory() + "/" + local_name(name);
}

std::vector<FileSetName> file_sets(const Repository& repository, const ClusterPlace& place) {
  std::vector<FileSetName> found;
  const std::string directory = place.directory() + "/files";
  for (const std::string& backup : repository.store().names(directory)) {
    if (!is_backup_id(backup)) continue;
    for (const std::string& name : repository.store().names(directory + "/" + backup)) {
      found.push_back({{backup}, name});
    }
  }
  return found;
}

FileSetWriter::FileSetWriter(const Repository& repository, const ClusterPlace& place,
                             const FileSetName& name)
    : compressor_(base::Compressor::Effort::dense),
      container_(repository.store(), place.directory(), local_name(name), Kind::file_set,
                 new_object_id(), repository.protection()) {}

void FileSetWriter::add(const FileSetEntry& entry, base::View content) {
  base::ByteWriter out;
  out.u8(static_cast<std::uint8_t>(entry.kind));
  out.string(entry.path);
  out.varint(entry.mode);
  out.string(entry.owner);
  out.signed_varint(entry.changed);
  if (entry.kind == FileSetEntry::Kind::link) out.string(entry.target);
  out.raw(content);
  container_.add(out.bytes(), compressor_);
}

void FileSetWriter::add_more(base::View content) {
  base::ByteWriter out;
  out.u8(more_content);
  out.raw(content);
  container_.add(out.bytes(), compressor_);
}

void FileSetWriter::commit(const FileSetSummary& summary) {
  base::ByteWriter out;
  out.u8(summary_frame);
  out.raw(base::view(to_json(summary).dump(2, ' ', false, json::error_handler_t::replace)));
  container_.add(out.bytes(), compressor_);
  if (!container_.commit()) base::fail(Code::conflict, "these files were taken already");
}

FileSetReader::FileSetReader(const Repository& repository, const ClusterPlace& place,
                             const FileSetName& name)
    : object_(object_of(place, name)), container_(open(repository, place, name)) {
  const std::size_t frames = container_.frames().size();
  if (frames == 0) corrupt("it is empty");
  container_.read(static_cast<std::uint32_t>(frames - 1), decompressor_, bytes_);
  if (bytes_.empty() || bytes_.front() != summary_frame) corrupt("its end is missing");
  try {
    summary_ = parse_summary(json::parse(base::text(base::View(bytes_).subspan(1))));
  } catch (const json::exception&) {
    corrupt("its last frame makes no sense");
  }
}

void FileSetReader::corrupt(std::string_view why) const {
  base::fail(Code::corrupt, "\"{}\" is corrupt: {}", object_, why);
}

void FileSetReader::read_frame() {
  container_.read(frame_++, decompressor_, bytes_);
  if (bytes_.empty()) corrupt("it has an empty frame");
}

std::optional<base::View> FileSetReader::more() {
  if (!in_file_ || frame_ + 1 >= container_.frames().size()) return std::nullopt;
  read_frame();
  if (bytes_.front() != more_content) {
    --frame_;  // is read again by next(); only the first frame behind a large file comes twice
    in_file_ = false;
    return std::nullopt;
  }
  const base::View content = base::View(bytes_).subspan(1);
  seen_bytes_ += content.size();
  return content;
}

std::optional<FileSetEntry> FileSetReader::next(base::View& content) {
  while (more()) {  // what was not wanted
  }
  in_file_ = false;
  if (frame_ + 1 >= container_.frames().size()) {
    if (entries_ != summary_.entries || seen_bytes_ != summary_.bytes) {
      corrupt("it holds other files than it says");
    }
    return std::nullopt;
  }
  read_frame();
  base::ByteReader in(bytes_, object_);
  FileSetEntry entry;
  const std::uint8_t kind = in.u8();
  if (kind < 1 || kind > 3) corrupt("it has an entry of an unknown kind");
  entry.kind = static_cast<FileSetEntry::Kind>(kind);
  entry.path = in.string();
  entry.mode = static_cast<std::uint32_t>(in.varint_at_most(07777));
  entry.owner = in.string();
  entry.changed = in.signed_varint();
  if (entry.kind == FileSetEntry::Kind::link) entry.target = in.string();
  content = in.raw(in.left());
  in_file_ = entry.kind == FileSetEntry::Kind::file;
  if (!in_file_ && !content.empty()) corrupt("content that belongs to no file");
  check_order(entry);
  ++entries_;
  seen_bytes_ += content.size();
  return entry;
}

/// The set itself comes first. What comes then is directly in a directory that is still open, so
/// nothing is ever below a file or a link, and nothing comes twice.
void FileSetReader::check_order(const FileSetEntry& entry) {
  using EntryKind = FileSetEntry::Kind;
  if (entries_ == 0) {
    if (!entry.path.empty() || entry.kind == EntryKind::link)
      corrupt("it does not begin with itself");
    if (entry.kind == EntryKind::directory) open_.emplace_back();
    return;
  }
  if (!is_safe_path(entry.path)) corrupt("it holds a path that leads elsewhere");
  if (!last_.empty() && !comes_before(last_, entry.path)) corrupt("its paths are out of order");
  const std::size_t slash = entry.path.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : entry.path.substr(0, slash);
  while (!open_.empty() && open_.back() != parent) open_.pop_back();
  if (open_.empty()) corrupt("it holds a path that leads elsewhere");
  if (entry.kind == EntryKind::directory) open_.push_back(entry.path);
  last_ = entry.path;
}

}  // namespace holdfast::repository
