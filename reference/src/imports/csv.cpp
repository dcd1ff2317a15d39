#include "imports/csv.h"

#include <csv.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "imports/utf8.h"

namespace reference::imports {
namespace {

constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
constexpr std::size_t piece = 64UL << 10;

/// libcsv's parser for one line.
class Parser {
 public:
  Parser() {
    if (csv_init(&parser_, CSV_STRICT | CSV_STRICT_FINI) != 0) throw std::bad_alloc();
  }
  ~Parser() { csv_free(&parser_); }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  bool parse(std::string_view line, std::vector<std::string>& fields) {
    return csv_parse(&parser_, line.data(), line.size(), take, nullptr, &fields) == line.size() &&
           csv_fini(&parser_, take, nullptr, &fields) == 0;
  }

 private:
  static void take(void* text, std::size_t length, void* into) {
    auto& fields = *static_cast<std::vector<std::string>*>(into);
    if (fields.size() <= most_fields) fields.emplace_back(static_cast<char*>(text), length);
  }
  csv_parser parser_{};
};

[[noreturn]] void fail(const std::filesystem::path& path) {
  throw std::runtime_error("could not read " + path.filename().string() + ": " +
                           std::strerror(errno));
}

std::string fault_of(std::string_view line) {
  if (line.size() > longest_line) {
    return "the line is longer than " + std::to_string(longest_line) + " bytes";
  }
  if (line.find('\0') != line.npos) return "the line holds a NUL byte";
  if (line.find_first_of("\r\n") != line.npos) {
    return "a line must end in LF or CRLF, and no field may hold a line break";
  }
  if (!is_utf8(line)) return "the line is not UTF-8";
  return "";
}

}  // namespace

Record parse_record(std::string_view line) {
  Record record;
  record.fault = fault_of(line);
  if (!record.fault.empty()) return record;
  Parser parser;
  if (!parser.parse(line, record.fields)) {
    record.fault = "a quote is misplaced, or not closed on its line";
  } else if (record.fields.size() > most_fields) {
    record.fault = "there are more than " + std::to_string(most_fields) + " fields";
  }
  if (!record.fault.empty()) record.fields.clear();
  return record;
}

CsvFile::CsvFile(const std::filesystem::path& path, Position from)
    : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), position_(from) {
  if (file_ < 0) fail(path);
  if (::lseek(file_, static_cast<off_t>(from.offset), SEEK_SET) < 0) {
    ::close(file_);
    fail(path);
  }
}

CsvFile::~CsvFile() {
  ::close(file_);
}

bool CsvFile::fill() {
  buffer_.erase(0, used_);
  used_ = 0;
  const std::size_t had = buffer_.size();
  buffer_.resize(had + piece);
  ssize_t count = 0;
  do {
    count = ::read(file_, buffer_.data() + had, piece);
  } while (count < 0 && errno == EINTR);
  buffer_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  if (count < 0) fail("the staged file");
  return count > 0;
}

bool CsvFile::next_line(std::string& line) {
  line.clear();
  bool is_any = false;
  for (;;) {
    if (used_ == buffer_.size() && !fill()) break;
    is_any = true;
    const std::size_t end = buffer_.find('\n', used_);
    const std::size_t stop = end == buffer_.npos ? buffer_.size() : end;
    const std::size_t room = longest_line + 1 - line.size();
    line.append(buffer_, used_, std::min(stop - used_, room));
    const std::size_t taken = stop - used_ + (end == buffer_.npos ? 0 : 1);
    used_ += taken;
    position_.offset += taken;
    if (end != buffer_.npos) break;
  }
  if (!is_any) return false;
  ++position_.line;
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

std::optional<Record> CsvFile::next() {
  std::string line;
  while (next_line(line)) {
    if (position_.line == 1 && line.starts_with(byte_order_mark)) {
      line.erase(0, byte_order_mark.size());
    }
    if (line.find_first_not_of(" \t") == line.npos) continue;
    return parse_record(line);
  }
  return std::nullopt;
}

}  // namespace reference::imports
