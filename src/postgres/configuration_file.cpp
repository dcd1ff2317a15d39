#include "postgres/configuration_file.h"

#include <algorithm>

namespace holdfast::postgres {

namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool begins_name(char c) {
  return lower(c) != c || (c >= 'a' && c <= 'z') || c == '_' || (c & '\x80') != 0;
}

bool continues_name(char c) {
  return begins_name(c) || (c >= '0' && c <= '9') || c == '.';
}

/// Reads one line as the server does (guc-file.l): NAME [=] VALUE, where the value is a quoted
/// string or a bare word, and a comment may follow.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : left_(line) {}

  void read_into(ConfigurationLine& line) {
    take_while(is_blank);
    if (left_.empty() || !begins_name(left_.front())) return;
    // The name alone is enough to know what is meant: a broken value must not hide that.
    line.name = lower_case(take_while(continues_name));
    take_while(is_blank);
    if (left_.starts_with('=')) left_.remove_prefix(1);
    take_while(is_blank);
    std::string value;
    if (left_.starts_with('\'')) {
      left_.remove_prefix(1);
      if (take_quoted(value)) line.value = std::move(value);
    } else {
      value = take_while([](char c) { return !is_blank(c) && c != '#' && c != '\''; });
      if (!value.empty()) line.value = std::move(value);
    }
  }

 private:
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

/// The tokens of pg_hba.conf, as next_token() in hba.c finds them.
class AccessReader {
 public:
  explicit AccessReader(std::string_view text) : text_(text) {}

  std::vector<AccessReference> read() {
    while (at_ < text_.size()) read_line();
    return std::move(found_);
  }

 private:
  bool ends_line() const {
    return at_ >= text_.size() || (text_[at_] == '\n' && (at_ == 0 || text_[at_ - 1] != '\\'));
  }

  void read_line() {
    std::optional<Include> directive;
    for (std::size_t count = 0; !ends_line();) {
      const char c = text_[at_];
      if (is_blank(c) || c == ',' || c == '\n' || c == '\\') {
        ++at_;
      } else if (c == '#') {
        while (!ends_line()) ++at_;
      } else {
        AccessReference token = take();
        if (count == 0) directive = include_directive(token.path);
        if (count == 1 && directive) {
          token.kind = *directive;
          found_.push_back(std::move(token));
        } else if (token.list) {
          token.path.erase(0, 1);
          found_.push_back(std::move(token));
        }
        ++count;
      }
    }
    ++at_;  // the line feed
  }

  AccessReference take() {
    AccessReference token;
    token.begin = at_;
    bool quoted = false;
    bool was_quote = false;
    for (; !ends_line(); ++at_) {
      const char c = text_[at_];
      if (c == '\n' || (!quoted && (is_blank(c) || c == ',' || c == '#'))) break;
      if (c != '"' || was_quote) token.path.push_back(c);
      was_quote = quoted && c == '"' && !was_quote;
      if (c == '"') quoted = !quoted;
    }
    token.end = at_;
    token.list = text_[token.begin] == '@' && token.path.size() > 1;
    return token;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<AccessReference> found_;
};

}  // namespace

std::string lower_case(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), lower);
  return result;
}

std::vector<ConfigurationLine> configuration_lines(std::string_view text) {
  std::vector<ConfigurationLine> lines;
  while (!text.empty()) {
    ConfigurationLine line;
    line.text = take_line(text);
    LineReader(line.text.ends_with('\n') ? line.text.substr(0, line.text.size() - 1) : line.text)
        .read_into(line);
    lines.push_back(std::move(line));
  }
  return lines;
}

std::optional<Include> include_directive(std::string_view name) {
  const std::string lowered = lower_case(name);
  if (lowered == "include") return Include::file;
  if (lowered == "include_if_exists") return Include::file_if_exists;
  if (lowered == "include_dir") return Include::directory;
  return std::nullopt;
}

bool is_included_name(std::string_view name) {
  return name.size() > 5 && !name.starts_with('.') && name.ends_with(".conf");
}

std::vector<AccessReference> access_references(std::string_view text) {
  return AccessReader(text).read();
}

std::string to_string(const AccessReference& reference, std::string_view path) {
  std::string text = reference.list ? "@\"" : "\"";
  for (const char c : path) {
    if (c == '"') text.push_back(c);
    text.push_back(c);
  }
  return text + "\"";
}

bool is_true(std::string_view value) {
  const std::string lowered = lower_case(value);
  if (lowered.empty()) return false;
  return lowered == "1" || lowered == "on" || std::string_view("true").starts_with(lowered) ||
         std::string_view("yes").starts_with(lowered);
}

}  // namespace holdfast::postgres
