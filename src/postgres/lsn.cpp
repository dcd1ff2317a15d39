#include "postgres/lsn.h"

#include <fmt/format.h>

#include <bit>

namespace holdfast::postgres {

namespace {

constexpr std::size_t word_digits = 8;

/// The segments that share the middle eight digits of their names (XLogSegmentsPerXLogId).
std::uint64_t segments_per_log(SegmentSize size) {
  return (std::uint64_t{1} << 32) / size.bytes;
}

std::optional<std::uint32_t> hex_word(std::string_view text, bool lower_case_too) {
  if (text.empty() || text.size() > word_digits) return std::nullopt;
  std::uint32_t value = 0;
  for (const char c : text) {
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else if (lower_case_too && c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | digit;
  }
  return value;
}

/// Takes eight upper-case digits off the front of `text`.
std::optional<std::uint32_t> take_word(std::string_view& text) {
  if (text.size() < word_digits) return std::nullopt;
  const auto value = hex_word(text.substr(0, word_digits), false);
  text.remove_prefix(word_digits);
  return value;
}

/// What follows the 24 digits of a segment's name decides what the file is. The whole rest counts:
/// "….backup.gz" is none of ours (pitfall B26).
std::optional<WalFileName::Kind> kind_of_suffix(std::string_view suffix) {
  if (suffix.empty()) return WalFileName::Kind::segment;
  if (suffix == ".partial") return WalFileName::Kind::partial;
  if (!suffix.starts_with('.')) return std::nullopt;
  suffix.remove_prefix(1);
  if (take_word(suffix) && suffix == ".backup") return WalFileName::Kind::backup;
  return std::nullopt;
}

}  // namespace

std::string to_string(Lsn lsn) {
  return fmt::format("{:X}/{:X}", lsn.value >> 32, lsn.value & 0xffffffff);
}

std::optional<Lsn> parse_lsn(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto high = hex_word(text.substr(0, slash), true);
  const auto low = hex_word(text.substr(slash + 1), true);
  if (!high || !low) return std::nullopt;
  return Lsn{std::uint64_t{*high} << 32 | *low};
}

bool is_valid(SegmentSize size) {
  return std::has_single_bit(size.bytes) && size.bytes >= 1 << 20 && size.bytes <= 1 << 30;
}

Segment segment_at(Timeline timeline, Lsn lsn, SegmentSize size) {
  return {timeline, lsn.value / size.bytes};
}

Lsn start_of(Segment segment, SegmentSize size) {
  return {segment.number * size.bytes};
}

Lsn end_of(Segment segment, SegmentSize size) {
  return {(segment.number + 1) * size.bytes};
}

std::string file_name(Segment segment, SegmentSize size) {
  const std::uint64_t per_log = segments_per_log(size);
  return fmt::format("{:08X}{:08X}{:08X}", segment.timeline.value, segment.number / per_log,
                     segment.number % per_log);
}

std::optional<Segment> WalFileName::segment(SegmentSize size) const {
  if (kind == Kind::history || !is_valid(size)) return std::nullopt;
  const std::uint64_t per_log = segments_per_log(size);
  if (seg >= per_log) return std::nullopt;
  return Segment{timeline, log * per_log + seg};
}

std::optional<WalFileName> parse_wal_file_name(std::string_view name) {
  WalFileName result;
  const auto timeline = take_word(name);
  if (!timeline) return std::nullopt;
  result.timeline = {*timeline};
  if (name == ".history") {
    result.kind = WalFileName::Kind::history;
    return result;
  }
  const auto log = take_word(name);
  if (!log) return std::nullopt;
  const auto seg = take_word(name);
  if (!seg) return std::nullopt;
  const auto kind = kind_of_suffix(name);
  if (!kind) return std::nullopt;
  result.kind = *kind;
  result.log = *log;
  result.seg = *seg;
  return result;
}

std::string history_file_name(Timeline timeline) {
  return fmt::format("{:08X}.history", timeline.value);
}

}  // namespace holdfast::postgres
