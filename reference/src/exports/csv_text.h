#pragma once

// CSV as it is exported: RFC 4180, CRLF, and nothing in it that a spreadsheet would run.
//
// A text that begins with = + - @ or a tab is a formula to spreadsheets; an apostrophe is put
// before it, and before a text that begins with one, so that imports can take it off again. Numbers
// and times are left alone: -5 is no formula.

#include <string>
#include <string_view>

namespace reference::exports {

enum class Field { text, plain };

/// Appends a field, quoted where it must be.
void append_field(std::string& line, std::string_view value, Field field);

}  // namespace reference::exports
