#include "postgres/tar_reader.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

constexpr std::size_t block = 512;

[[noreturn]] void corrupt(std::string_view why) {
  base::fail(base::Code::corrupt, "the server sent an archive that cannot be read: {}", why);
}

/// The fields of a header: where they stand, and how long they are.
struct Field {
  std::size_t at;
  std::size_t size;
};
constexpr Field name_field{0, 100};
constexpr Field mode_field{100, 8};
constexpr Field uid_field{108, 8};
constexpr Field gid_field{116, 8};
constexpr Field size_field{124, 12};
constexpr Field checksum_field{148, 8};
constexpr std::size_t type_at = 156;
constexpr Field magic_field{257, 5};
constexpr Field user_field{265, 32};
constexpr Field group_field{297, 32};
constexpr Field prefix_field{345, 155};

base::View bytes_of(base::View header, Field field) {
  return header.subspan(field.at, field.size);
}

std::string text_of(base::View header, Field field) {
  const std::string_view all = base::text(bytes_of(header, field));
  return std::string(all.substr(0, all.find('\0')));
}

/// Octal digits up to a space or zero byte; or, with the first bit set, a big-endian number.
std::uint64_t number_of(base::View header, Field field) {
  const base::View bytes = bytes_of(header, field);
  std::uint64_t value = 0;
  if (bytes[0] == 0x80) {
    for (const std::uint8_t byte : bytes.subspan(1)) {
      if (value >> 56 != 0) corrupt("a number in a header is too large");
      value = value << 8 | byte;
    }
    return value;
  }
  std::size_t at = 0;
  while (at < bytes.size() && bytes[at] == ' ') ++at;
  const std::size_t first = at;
  while (at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '7') {
    value = value << 3 | (bytes[at++] - std::uint64_t{'0'});
  }
  if (at == first || (at < bytes.size() && bytes[at] != ' ' && bytes[at] != 0)) {
    corrupt("a number in a header is none");
  }
  return value;
}

/// The sum of all bytes of the header, with spaces where the sum itself stands.
std::uint64_t checksum_of(base::View header) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < header.size(); ++at) {
    const bool own = at >= checksum_field.at && at < checksum_field.at + checksum_field.size;
    sum += own ? std::uint64_t{' '} : header[at];
  }
  return sum;
}

std::string path_of(base::View header) {
  std::string path = text_of(header, name_field);
  if (const std::string prefix = text_of(header, prefix_field); !prefix.empty()) {
    path.insert(0, prefix + "/");
  }
  while (path.starts_with("./")) path.erase(0, 2);
  if (path.ends_with('/')) path.pop_back();
  return path;
}

std::string owner_of(base::View header) {
  const auto part = [&](Field name, Field number) {
    std::string text = text_of(header, name);
    return text.empty() ? std::to_string(number_of(header, number)) : text;
  };
  return part(user_field, uid_field) + ":" + part(group_field, gid_field);
}

TarMember member_of(base::View header) {
  if (number_of(header, checksum_field) != checksum_of(header)) {
    corrupt("the checksum of a header is wrong");
  }
  if (base::text(bytes_of(header, magic_field)) != "ustar") corrupt("it is no ustar archive");
  TarMember member;
  member.path = path_of(header);
  const char type = static_cast<char>(header[type_at]);
  if (type == '5') {
    member.kind = TarMember::Kind::directory;
  } else if (type != '0' && type != '\0') {
    corrupt(fmt::format("\"{}\" is neither a file nor a directory", member.path));
  }
  if (!is_plain_path(member.path)) {
    corrupt(fmt::format("the path \"{}\" leads out of it", member.path));
  }
  member.size = number_of(header, size_field);
  member.mode = static_cast<std::uint32_t>(number_of(header, mode_field)) & 07777U;
  member.owner = owner_of(header);
  if (member.kind == TarMember::Kind::directory && member.size != 0) {
    corrupt(fmt::format("the directory \"{}\" has content", member.path));
  }
  return member;
}

bool is_zero(base::View bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

bool is_plain_path(std::string_view path) {
  if (path.find('\0') != std::string_view::npos) return false;
  while (true) {
    const std::string_view part = path.substr(0, path.find('/'));
    if (part.empty() || part == "." || part == "..") return false;
    if (part.size() == path.size()) return true;
    path.remove_prefix(part.size() + 1);
  }
}

void TarReader::feed(base::View bytes) {
  while (!bytes.empty()) {
    std::size_t taken = 0;
    switch (state_) {
      case State::header: {
        taken = std::min(block - header_.size(), bytes.size());
        const base::View part = bytes.first(taken);
        header_.insert(header_.end(), part.begin(), part.end());
        if (header_.size() == block) read_header();
        break;
      }
      case State::content:
        taken = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
        visitor_->content(bytes.first(taken));
        left_ -= taken;
        if (left_ == 0) end_content();
        break;
      case State::padding:
        taken = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
        left_ -= taken;
        if (left_ == 0) state_ = State::header;
        break;
      case State::trailer:
        if (!is_zero(bytes)) corrupt("there is something behind its end");
        taken = bytes.size();
        break;
    }
    bytes = bytes.subspan(taken);
  }
}

void TarReader::read_header() {
  if (is_zero(header_)) {
    header_.clear();
    state_ = State::trailer;
    return;
  }
  const TarMember member = member_of(header_);
  header_.clear();
  if (member.kind == TarMember::Kind::directory) {
    visitor_->directory(member);
    return;
  }
  visitor_->begin_file(member);
  size_ = left_ = member.size;
  state_ = State::content;
  if (left_ == 0) end_content();
}

void TarReader::end_content() {
  visitor_->end_file();
  left_ = (block - size_ % block) % block;
  state_ = left_ == 0 ? State::header : State::padding;
}

void TarReader::finish() const {
  const bool between = state_ == State::header && header_.empty();
  if (!between && state_ != State::trailer) corrupt("it is cut off");
}

}  // namespace holdfast::postgres
