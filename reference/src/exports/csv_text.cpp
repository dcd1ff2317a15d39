#include "exports/csv_text.h"

namespace reference::exports {

void append_field(std::string& line, std::string_view value, Field field) {
  const bool is_guarded = field == Field::text && !value.empty() &&
                          std::string_view("=+-@\t\r\n'").find(value[0]) != std::string_view::npos;
  const bool is_quoted = value.find_first_of(",\"\r\n") != value.npos || value.starts_with(' ') ||
                         value.ends_with(' ') || value.find('\t') != value.npos;
  if (is_quoted) line += '"';
  if (is_guarded) line += '\'';
  for (const char each : value) {
    if (each == '"') line += '"';
    line += each;
  }
  if (is_quoted) line += '"';
}

}  // namespace reference::exports
