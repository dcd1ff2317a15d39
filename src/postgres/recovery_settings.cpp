#include "postgres/recovery_settings.h"

#include <algorithm>

namespace holdfast::postgres {

namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

bool begins_name(char c) {
  return lower(c) != c || (c >= 'a' && c <= 'z') || c == '_' || (c & '\x80') != 0;
}

bool continues_name(char c) {
  return begins_name(c) || (c >= '0' && c <= '9') || c == '.';
}

struct Assignment {
  std::string_view name;
  std::string value;
};

/// Reads one line as the server does (guc-file.l): NAME [=] VALUE, where the value is a quoted
/// string or a bare word, and a comment may follow.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : left_(line) {}

  std::optional<Assignment> read() {
    skip_blanks();
    Assignment result;
    if (left_.empty() || !begins_name(left_.front())) return std::nullopt;
    result.name = take_while(continues_name);
    skip_blanks();
    if (left_.starts_with('=')) left_.remove_prefix(1);
    skip_blanks();
    if (left_.starts_with('\'')) {
      left_.remove_prefix(1);
      if (!take_quoted(result.value)) return std::nullopt;
    } else {
      result.value = take_while([](char c) { return !is_blank(c) && c != '#' && c != '\''; });
      if (result.value.empty()) return std::nullopt;
    }
    return result;
  }

 private:
  void skip_blanks() { take_while(is_blank); }

  template <typename Condition>
  std::string_view take_while(Condition condition) {
    std::size_t size = 0;
    while (size < left_.size() && condition(left_[size])) ++size;
    const std::string_view taken = left_.substr(0, size);
    left_.remove_prefix(size);
    return taken;
  }

  /// The rest of a quoted string, after its opening quote; false if it does not end.
  bool take_quoted(std::string& value) {
    while (!left_.empty()) {
      const char c = left_.front();
      left_.remove_prefix(1);
      if (c == '\\') {
        if (left_.empty()) return false;
        value.push_back(take_escape());
      } else if (c != '\'') {
        value.push_back(c);
      } else if (left_.starts_with('\'')) {
        value.push_back(c);
        left_.remove_prefix(1);
      } else {
        return true;
      }
    }
    return false;
  }

  /// What follows a backslash: up to three octal digits, a letter for a control character, or
  /// itself.
  char take_escape() {
    int octal = 0;
    int digits = 0;
    for (; digits < 3 && !left_.empty() && left_.front() >= '0' && left_.front() <= '7'; ++digits) {
      octal = octal * 8 + (left_.front() - '0');
      left_.remove_prefix(1);
    }
    if (digits > 0) return static_cast<char>(octal);
    const char c = left_.front();
    left_.remove_prefix(1);
    switch (c) {
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      default:
        return c;
    }
  }

  std::string_view left_;
};

/// The next line, with its line feed if it has one.
std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end == std::string_view::npos ? end : end + 1);
  text.remove_prefix(line.size());
  return line;
}

std::string_view without_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  return line;
}

/// The name alone is enough to drop a line: a broken value must not keep it in.
std::string_view name_of(std::string_view line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  const auto end = std::find_if_not(line.begin(), line.end(), continues_name);
  return line.substr(0, static_cast<std::size_t>(end - line.begin()));
}

bool is_named(std::string_view name, const std::vector<std::string>& names, const Settings& added) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& each) { return same_name(each, name); }) ||
         std::any_of(added.begin(), added.end(),
                     [&](const auto& each) { return same_name(each.first, name); });
}

}  // namespace

std::string quote_setting(std::string_view value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\n') {
      quoted += "\\n";  // a value cannot go on in the next line
    } else {
      if (c == '\'' || c == '\\') quoted.push_back(c);
      quoted.push_back(c);
    }
  }
  return quoted + "'";
}

std::string edit_settings(std::string_view text, const std::vector<std::string>& names,
                          const Settings& added, std::string_view comment) {
  std::string result;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (!is_named(name_of(line), names, added)) result += line;
  }
  if (added.empty()) return result;
  if (!result.empty() && !result.ends_with('\n')) result.push_back('\n');
  while (!comment.empty()) result += "# " + std::string(without_end(take_line(comment))) + "\n";
  for (const auto& [name, value] : added) result += name + " = " + quote_setting(value) + "\n";
  return result;
}

std::optional<std::string> find_setting(std::string_view text, std::string_view name) {
  std::optional<std::string> found;
  while (!text.empty()) {
    std::optional<Assignment> assignment = LineReader(without_end(take_line(text))).read();
    if (assignment && same_name(assignment->name, name)) found = std::move(assignment->value);
  }
  return found;
}

const std::vector<std::string>& recovery_setting_names() {
  static const std::vector<std::string> names = {
      "recovery_target",           "recovery_target_action",
      "recovery_target_inclusive", "recovery_target_lsn",
      "recovery_target_name",      "recovery_target_time",
      "recovery_target_timeline",  "recovery_target_xid",
      "restore_command",           "archive_cleanup_command",
      "recovery_end_command",      "primary_conninfo",
      "primary_slot_name",         "promote_trigger_file",
      "recovery_min_apply_delay",  "archive_mode",
      "archive_command",           "archive_library",
  };
  return names;
}

}  // namespace holdfast::postgres
