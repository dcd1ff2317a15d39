#include "postgres/backup_label.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

[[noreturn]] void corrupt_label(std::string_view why) {
  base::fail(base::Code::corrupt, "backup_label is corrupt: {}", why);
}

[[noreturn]] void corrupt_map(std::string_view why) {
  base::fail(base::Code::corrupt, "tablespace_map is corrupt: {}", why);
}

std::optional<std::uint32_t> decimal(std::string_view text) {
  std::uint32_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// The lines "NAME: VALUE" of a backup_label, each of which ends in a line feed.
class Lines {
 public:
  explicit Lines(std::string_view text) {
    while (!text.empty()) {
      const std::size_t end = text.find('\n');
      if (end == std::string_view::npos) corrupt_label("its last line has no end");
      lines_.push_back(text.substr(0, end));
      text.remove_prefix(end + 1);
    }
  }

  /// The value of a line that must be there. START TIMELINE is written after LABEL, which is free
  /// text and may hold line feeds: of two lines with one name, `last` says which PostgreSQL wrote.
  std::string_view value(std::string_view name, bool last = false) const {
    std::optional<std::string_view> found;
    for (const std::string_view line : lines_) {
      if (!line.starts_with(name) || !line.substr(name.size()).starts_with(": ")) continue;
      if (!found || last) found = line.substr(name.size() + 2);
    }
    if (!found) corrupt_label(fmt::format("it has no line {}", name));
    return *found;
  }

 private:
  std::vector<std::string_view> lines_;
};

Lsn lsn_of(std::string_view text) {
  const std::optional<Lsn> lsn = parse_lsn(text);
  if (!lsn || !*lsn) corrupt_label(fmt::format("\"{}\" is no WAL position", text));
  return *lsn;
}

/// "0/2000028 (file 000000010000000000000002)"
void read_start(std::string_view text, BackupLabel& label) {
  constexpr std::string_view between = " (file ";
  const std::size_t at = text.find(between);
  if (at == std::string_view::npos || !text.ends_with(')')) {
    corrupt_label("START WAL LOCATION names no file");
  }
  label.start = lsn_of(text.substr(0, at));
  const std::string_view file = text.substr(at + between.size());
  label.start_file = file.substr(0, file.size() - 1);
}

bool says_standby(std::string_view text) {
  if (text != "primary" && text != "standby") corrupt_label("BACKUP FROM is neither of the two");
  return text == "standby";
}

/// Both name the timeline, and PostgreSQL refuses the file if they differ (read_backup_label).
void check_timeline(const BackupLabel& label) {
  const std::optional<WalFileName> name = parse_wal_file_name(label.start_file);
  if (!name || name->kind != WalFileName::Kind::segment) {
    corrupt_label(fmt::format("\"{}\" is no WAL segment", label.start_file));
  }
  if (name->timeline != label.timeline) corrupt_label("its timelines contradict each other");
}

/// Takes one line of a tablespace_map, up to an unescaped line end, off `text`.
std::string take_map_line(std::string_view& text) {
  std::string line;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (text[i] == '\\' && (next == '\\' || next == '\n' || next == '\r')) {
      line.push_back(next);
      ++i;
    } else if (text[i] == '\n') {
      text.remove_prefix(i + 1);
      return line;
    } else {
      line.push_back(text[i]);  // PostgreSQL 13 did not escape backslashes
    }
  }
  corrupt_map("its last line has no end");
}

}  // namespace

BackupLabel parse_backup_label(std::string_view text) {
  const Lines lines(text);
  BackupLabel label;
  read_start(lines.value("START WAL LOCATION"), label);
  label.checkpoint = lsn_of(lines.value("CHECKPOINT LOCATION"));
  label.from_standby = says_standby(lines.value("BACKUP FROM"));
  label.label = lines.value("LABEL");
  const std::optional<std::uint32_t> timeline = decimal(lines.value("START TIMELINE", true));
  if (!timeline) corrupt_label("START TIMELINE is no number");
  label.timeline = {*timeline};
  check_timeline(label);
  return label;
}

std::string whole_backup_label(std::string_view text) {
  std::string whole;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    if (!text.starts_with("INCREMENTAL FROM ")) whole += text.substr(0, end);
    text.remove_prefix(end);
  }
  return whole;
}

std::vector<Tablespace> parse_tablespace_map(std::string_view text) {
  std::vector<Tablespace> tablespaces;
  while (!text.empty()) {
    const std::string line = take_map_line(text);
    const std::size_t space = line.find(' ');
    if (space == std::string::npos) corrupt_map("a line names no location");
    const std::optional<std::uint32_t> oid = decimal(std::string_view(line).substr(0, space));
    if (!oid || *oid == 0) corrupt_map("a line does not begin with a tablespace's number");
    if (space + 1 == line.size()) corrupt_map("a location is empty");
    tablespaces.push_back({*oid, line.substr(space + 1)});
  }
  return tablespaces;
}

std::string write_tablespace_map(const std::vector<Tablespace>& tablespaces) {
  std::string text;
  for (const Tablespace& tablespace : tablespaces) {
    text += fmt::format("{} ", tablespace.oid);
    for (const char c : tablespace.location) {
      if (c == '\\' || c == '\n' || c == '\r') text.push_back('\\');
      text.push_back(c);
    }
    text.push_back('\n');
  }
  return text;
}

}  // namespace holdfast::postgres
