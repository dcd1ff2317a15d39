#pragma once

// CSV as it is imported: one record a line, so that nothing in a line can spoil the next one.
//
// RFC 4180 with commas and double quotes, LF or CRLF, an optional byte order mark, UTF-8; blank
// lines are passed over, and blanks around unquoted fields are cut off. What RFC 4180 allows and
// this does not is a line break inside quotes: with it, one quote too many would swallow all rows
// that follow, or turn text into rows. A line that is no record has a fault instead of fields; no
// input throws, only a file that cannot be read does (std::runtime_error).
//
// Memory is bounded by longest_line, whatever the file holds.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace reference::imports {

constexpr std::size_t longest_line = 64UL << 10;
constexpr std::size_t most_fields = 100;

struct Record {
  std::vector<std::string> fields;
  std::string fault;  ///< "" unless the line is no record
};

/// The record of one line without its line break.
Record parse_record(std::string_view line);

/// Where in a file reading goes on: what a job remembers between batches.
struct Position {
  std::uint64_t offset = 0;
  std::uint64_t line = 0;  ///< how many lines lie before it
};

class CsvFile {
 public:
  /// Throws std::runtime_error if it cannot be opened.
  explicit CsvFile(const std::filesystem::path& path, Position from = {});
  ~CsvFile();
  CsvFile(const CsvFile&) = delete;
  CsvFile& operator=(const CsvFile&) = delete;

  /// The next line that is not blank; absent at the end.
  std::optional<Record> next();
  /// Behind the line that was read last; its `line` is that line's number, counted from 1.
  Position position() const { return position_; }

 private:
  bool fill();
  /// The next line, without its end; longer ones come cut off at longest_line + 1.
  bool next_line(std::string& line);

  int file_ = -1;
  Position position_;
  std::string buffer_;
  std::size_t used_ = 0;
};

}  // namespace reference::imports
