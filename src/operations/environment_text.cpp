#include "operations/environment_text.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace holdfast::operations {

namespace {

using base::Code;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  EnvironmentVariables run() {
    while (at_ < text_.size()) read_line();
    return std::move(variables_);
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    const auto line = std::count(text_.begin(), text_.begin() + static_cast<long>(at_), '\n') + 1;
    throw base::Error(Code::configuration,
                      fmt::format("cannot read {}, line {}: {}", where_, line, why),
                      "write the value in single quotes");
  }
  bool done() const { return at_ == text_.size(); }
  char now() const { return text_[at_]; }
  void skip_blanks() {
    while (!done() && is_blank(now())) ++at_;
  }
  void skip_line() {
    at_ = std::min(text_.find('\n', at_), text_.size());
    if (!done()) ++at_;
  }

  void read_line() {
    while (!done() && (is_blank(now()) || now() == '\n')) ++at_;
    if (done() || now() == '#') return skip_line();
    constexpr std::string_view prefix = "export ";
    if (text_.substr(at_).starts_with(prefix)) at_ += prefix.size();
    skip_blanks();
    const std::size_t begin = at_;
    while (!done() && now() != '=' && now() != ':' && now() != '\n') ++at_;
    std::string_view name = text_.substr(begin, at_ - begin);
    while (!name.empty() && is_blank(name.back())) name.remove_suffix(1);
    if (!is_variable_name(name)) refuse("there is no name of a variable");
    if (done() || now() == '\n') return skip_line();  // its value comes from elsewhere
    ++at_;
    skip_blanks();
    std::string value = read_value();
    std::erase_if(variables_, [&](const auto& each) { return each.first == name; });
    variables_.emplace_back(name, std::move(value));
    skip_line();
  }

  std::string read_value() {
    if (done() || now() == '\n') return {};
    if (now() == '\'') return read_literal();
    if (now() == '"') return read_escaped();
    const std::size_t begin = at_;
    at_ = std::min(text_.find('\n', at_), text_.size());
    std::string_view raw = text_.substr(begin, at_ - begin);
    if (raw.starts_with('#')) raw = {};
    raw = raw.substr(0, std::min(raw.find(" #"), raw.find("\t#")));
    while (!raw.empty() && is_blank(raw.back())) raw.remove_suffix(1);
    std::string value;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] == '$') i += take_dollar(raw.substr(i));
      value += raw[i];
    }
    return value;
  }

  /// "$$" is "$"; anything else would be another variable. How many to pass over.
  std::size_t take_dollar(std::string_view rest) const {
    if (rest.size() > 1 && rest[1] == '$') return 1;
    refuse("it is put together from other variables (\"$\")");
  }

  std::string read_literal() {
    std::string value;
    for (++at_; !done(); ++at_) {
      if (now() == '\'') {
        ++at_;
        return value;
      }
      if (now() == '\\' && at_ + 1 < text_.size()) {
        ++at_;
        if (now() != '\'') value += '\\';
      }
      value += now();
    }
    refuse("a quote is not closed");
  }

  std::string read_escaped() {
    std::string value;
    for (++at_; !done(); ++at_) {
      if (now() == '"') {
        ++at_;
        return value;
      }
      if (now() == '$') {
        at_ += take_dollar(text_.substr(at_));
      } else if (now() == '\\' && at_ + 1 < text_.size()) {
        ++at_;
        value += unescaped();
        continue;
      }
      value += now();
    }
    refuse("a quote is not closed");
  }

  /// What stands behind a backslash between double quotes.
  std::string unescaped() const {
    constexpr std::string_view letters = "abfnrtv\"\\$";
    constexpr std::string_view meant = "\a\b\f\n\r\t\v\"\\$";
    const std::size_t which = letters.find(now());
    if (which != std::string_view::npos) return std::string(1, meant[which]);
    if (now() == '0' || now() == 'c') refuse("it has an escape that is not understood");
    return {'\\', now()};
  }

  std::string_view text_;
  std::string_view where_;
  std::size_t at_ = 0;
  EnvironmentVariables variables_;
};

std::string quoted(const std::string& value) {
  if (value.find_first_of("'\\\r") == std::string::npos) return "'" + value + "'";
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\' || c == '$') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

bool is_variable_name(std::string_view name) {
  const auto good = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; };
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::ranges::all_of(name, good);
}

EnvironmentVariables parse_environment(std::string_view text, std::string_view where) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return Parser(text, where).run();
}

std::string write_environment(const EnvironmentVariables& variables) {
  std::string text;
  for (const auto& [name, value] : variables) text += fmt::format("{}={}\n", name, quoted(value));
  return text;
}

}  // namespace holdfast::operations
