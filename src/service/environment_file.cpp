#include "service/environment_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/hash.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r';
}
bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-';
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view where) : text_(text), where_(where) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }

  std::vector<EnvironmentVariable> parse() {
    while (go_to_statement()) {
      EnvironmentVariable variable = read_name();
      if (variable.assigned) read_value(variable);
      known_[variable.name] = variable.value;
      found_.push_back(std::move(variable));
    }
    return std::move(found_);
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    throw Error(Code::configuration,
                fmt::format("cannot understand line {} of {}: {}", line(), where_, why),
                "docker compose could not read it either");
  }
  std::size_t line() const {
    const auto end = text_.begin() + static_cast<std::ptrdiff_t>(at_);
    return 1 + static_cast<std::size_t>(std::count(text_.begin(), end, '\n'));
  }
  bool over() const { return at_ == text_.size(); }
  char here() const { return text_[at_]; }
  void skip_spaces() {
    while (!over() && is_space(here())) ++at_;
  }

  bool go_to_statement() {
    while (!over()) {
      if (is_space(here()) || here() == '\n') {
        ++at_;
      } else if (here() == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else {
        return true;
      }
    }
    return false;
  }

  EnvironmentVariable read_name() {
    EnvironmentVariable variable;
    variable.line = line();
    constexpr std::string_view prefix = "export";
    if (text_.substr(at_).starts_with(prefix) && at_ + prefix.size() < text_.size() &&
        is_space(text_[at_ + prefix.size()])) {
      at_ += prefix.size();
      skip_spaces();
    }
    const std::size_t begin = at_;
    while (!over() && is_name(here())) ++at_;
    variable.name = text_.substr(begin, at_ - begin);
    if (variable.name.empty()) refuse("it does not begin with a name");
    variable.value_begin = variable.value_end = at_;
    skip_spaces();
    variable.assigned = !over() && here() != '\n';
    if (!variable.assigned) return variable;
    if (here() != '=' && here() != ':') refuse("there is no = behind the name");
    ++at_;
    skip_spaces();
    return variable;
  }

  void read_value(EnvironmentVariable& variable) {
    variable.value_begin = at_;
    if (!over() && (here() == '\'' || here() == '"')) {
      const bool interpolated = here() == '"';
      std::string raw = read_quoted();
      if (!interpolated) {
        variable.value = std::move(raw);
      } else if (has_only_known_escapes(raw)) {
        variable.value = expanded(with_escapes(raw));
      }
      variable.value_end = at_;
      return;
    }
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view raw = text_.substr(at_, end - at_);
    raw = raw.substr(0, raw.find(" #"));
    while (!raw.empty() && is_space(raw.back())) raw.remove_suffix(1);
    variable.value = expanded(raw);
    variable.value_end = at_ + raw.size();
    at_ = end;
  }

  /// A backslash only means something before the quote that this is in; all others stay.
  std::string read_quoted() {
    const std::size_t begin = at_;
    const char quote = here();
    std::string raw;
    bool escaped = false;
    for (++at_; !over(); ++at_) {
      const char c = here();
      if (c == '\r' && text_.substr(at_, 2) == "\r\n") continue;
      if (escaped) {
        if (c != quote) raw += '\\';
        raw += c;
        escaped = false;
      } else if (c == '\\') {
        escaped = true;
      } else if (c == quote) {
        ++at_;
        return raw;
      } else {
        raw += c;
      }
    }
    at_ = begin;
    refuse("a quote has no end");
  }

  /// Numbers and control characters are not read alike by all versions of compose.
  static bool has_only_known_escapes(std::string_view raw) {
    for (std::size_t i = 0; i + 1 < raw.size(); ++i) {
      if (raw[i] != '\\') continue;
      ++i;
      if (raw[i] == '0' || raw[i] == 'c') return false;
    }
    return true;
  }

  /// Of double quotes. "\$" becomes "$$", which the expansion knows.
  static std::string with_escapes(std::string_view raw) {
    static const std::map<char, std::string> escapes = {
        {'a', "\a"}, {'b', "\b"}, {'f', "\f"}, {'n', "\n"},  {'r', "\r"},
        {'t', "\t"}, {'v', "\v"}, {'"', "\""}, {'\\', "\\"}, {'$', "$$"}};
    std::string text;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      const auto escape =
          raw[i] == '\\' && i + 1 < raw.size() ? escapes.find(raw[i + 1]) : escapes.end();
      if (escape == escapes.end()) {
        text += raw[i];
        continue;
      }
      text += escape->second;
      ++i;
    }
    return text;
  }

  /// $$, $NAME, ${NAME}, ${NAME-x} and ${NAME:-x}, by what stands before. nullopt: it is not known.
  std::optional<std::string> expanded(std::string_view raw) const {
    std::string text;
    for (std::size_t i = 0; i < raw.size();) {
      if (raw[i] != '$') {
        text += raw[i++];
        continue;
      }
      if (raw.substr(i).starts_with("$$")) {
        text += '$';
        i += 2;
        continue;
      }
      const bool braces = raw.substr(i).starts_with("${");
      const std::size_t begin = i + (braces ? 2 : 1);
      std::size_t end = begin;
      while (end < raw.size() && is_name(raw[end]) && raw[end] != '.' && raw[end] != '-') ++end;
      if (end == begin) {
        if (braces) return std::nullopt;
        text += raw[i++];
        continue;
      }
      std::string_view otherwise;
      std::size_t next = end;
      bool has_otherwise = false;
      if (braces) {
        const std::size_t close = raw.find('}', end);
        if (close == std::string_view::npos) return std::nullopt;
        otherwise = raw.substr(end, close - end);
        next = close + 1;
        if (!otherwise.empty()) {
          has_otherwise = true;
          if (otherwise.starts_with(":-")) {
            otherwise.remove_prefix(2);
          } else {
            return std::nullopt;
          }
        }
      }
      const auto known = known_.find(std::string(raw.substr(begin, end - begin)));
      if (known == known_.end() || !known->second) return std::nullopt;
      text += has_otherwise && known->second->empty() ? otherwise : *known->second;
      i = next;
    }
    return text;
  }

  std::string_view text_;
  std::string_view where_;
  std::size_t at_ = 0;
  std::map<std::string, std::optional<std::string>> known_;
  std::vector<EnvironmentVariable> found_;
};

/// The one that counts.
const EnvironmentVariable* last_of(const std::vector<EnvironmentVariable>& all,
                                   const std::string& name) {
  const EnvironmentVariable* found = nullptr;
  for (const EnvironmentVariable& each : all) {
    if (each.name == name) found = &each;
  }
  return found;
}

bool needs_double_quotes(std::string_view value) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (value[i] == '\n' || value[i] == '\r') return true;
    if (value[i] == '\\' && (i + 1 == value.size() || value[i + 1] == '\'')) return true;
  }
  return false;
}

std::string in_quotes(std::string_view value) {
  const bool twice = needs_double_quotes(value);
  std::string text(1, twice ? '"' : '\'');
  for (const char c : value) {
    if (twice && c == '\n') {
      text += "\\n";
    } else if (twice && c == '\r') {
      text += "\\r";
    } else {
      const bool special = twice ? c == '\\' || c == '"' || c == '$' : c == '\'';
      if (special) text += '\\';
      text += c;
    }
  }
  text += text.front();
  return text;
}

/// A new value may change what others are interpolated to: these only keep their place.
void check_result(const std::string& text, std::size_t count, const std::string& name,
                  const std::string& value) {
  const auto after = parse_environment(text);
  const EnvironmentVariable* found = last_of(after, name);
  if (after.size() == count && found != nullptr && found->value == value) return;
  throw Error(Code::internal,
              fmt::format("internal error: {} would not be read back as it is written", name),
              "nothing was written; please report this");
}

std::string text_of(const path& file) {
  const auto bytes = base::read_file(file);
  if (!bytes) {
    throw Error(Code::not_found,
                fmt::format("cannot find the environment file \"{}\"", file.string()));
  }
  return std::string(base::text(*bytes));
}

/// Removed unless it was renamed.
class Unfinished {
 public:
  explicit Unfinished(path file) : file_(std::move(file)) {}
  ~Unfinished() { ::unlink(file_.c_str()); }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

 private:
  path file_;
};

/// base::replace_file, but with a given owner, set before the content is there.
void replace_alike(const path& file, std::string_view text, const struct stat& like) {
  const path temporary =
      fmt::format("{}.{}.new", file.string(), base::to_hex(base::random_bytes(4)));
  const Unfinished unfinished(temporary);
  {
    const base::Fd written = base::open_file(temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
    const auto ours = base::status_of(temporary);
    const bool same = ours && ours->st_uid == like.st_uid && ours->st_gid == like.st_gid;
    if (!same && ::fchown(written.get(), like.st_uid, like.st_gid) != 0) {
      base::fail_errno(fmt::format("keep the owner of \"{}\"", file.string()), errno);
    }
    if (::fchmod(written.get(), like.st_mode & 07777) != 0) {
      base::fail_errno(fmt::format("keep the mode of \"{}\"", file.string()), errno);
    }
    base::write_all(written, base::view(text), temporary);
    base::sync_file(written, temporary);
  }
  if (::rename(temporary.c_str(), file.c_str()) != 0) {
    base::fail_errno(fmt::format("replace \"{}\"", file.string()), errno);
  }
  base::sync_directory(file.parent_path());
}

/// Where the file itself is, with links followed.
path real_path(const path& file) {
  std::error_code failed;
  path real = base::fs::canonical(file, failed);
  if (!failed) return real;
  throw Error(Code::not_found,
              fmt::format("cannot find the environment file \"{}\"", file.string()));
}

path previous_of(const path& file) {
  return file.string() + ".previous";
}

}  // namespace

std::vector<EnvironmentVariable> parse_environment(std::string_view text, std::string_view where) {
  return Parser(text, where).parse();
}

EnvironmentValues environment_values(std::string_view text, std::string_view where) {
  EnvironmentValues values;
  for (EnvironmentVariable& each : parse_environment(text, where)) {
    if (!each.assigned) continue;
    if (!each.value) {
      throw Error(Code::configuration,
                  fmt::format("cannot read line {} of {}: what its value is depends on other "
                              "variables",
                              each.line, where),
                  "write the value in single quotes");
    }
    std::erase_if(values, [&](const auto& earlier) { return earlier.first == each.name; });
    values.emplace_back(std::move(each.name), std::move(*each.value));
  }
  return values;
}

std::string environment_text(const EnvironmentValues& values) {
  std::string text;
  for (const auto& [name, value] : values) {
    text += fmt::format("{}={}\n", name, in_quotes(value));
  }
  if (environment_values(text, "what was to be written") != values) {
    throw Error(Code::internal, "internal error: variables would not be read back as written",
                "nothing was written; please report this");
  }
  return text;
}

bool is_variable_name(std::string_view name) {
  return !name.empty() && !(name.front() >= '0' && name.front() <= '9') &&
         std::ranges::all_of(name, [](char c) { return is_name(c) && c != '.' && c != '-'; });
}

std::string with_variable(std::string_view text, const std::string& name,
                          const std::string& value) {
  if (name.empty() || !std::ranges::all_of(name, is_name)) {
    throw Error(Code::usage, fmt::format("\"{}\" is no name of a variable", name));
  }
  if (value.find('\0') != std::string::npos) {
    throw Error(Code::usage, fmt::format("cannot write {}: it holds a byte 0", name));
  }
  const auto before = parse_environment(text);
  const EnvironmentVariable* found = last_of(before, name);
  std::string result(text);
  if (found != nullptr) {
    const std::string assigned = in_quotes(value);
    result.replace(found->value_begin, found->value_end - found->value_begin, assigned);
    if (!found->assigned) result.insert(found->value_begin, 1, '=');
  } else {
    const std::string_view line_end = text.find("\r\n") == std::string_view::npos ? "\n" : "\r\n";
    if (!result.empty() && result.back() != '\n' && result != "\xef\xbb\xbf") result += line_end;
    result += fmt::format("{}={}{}", name, in_quotes(value), line_end);
  }
  check_result(result, before.size() + (found == nullptr ? 1 : 0), name, value);
  return result;
}

std::optional<std::string> read_variable(const path& file, const std::string& name) {
  const auto all = parse_environment(text_of(file));
  const EnvironmentVariable* found = last_of(all, name);
  return found == nullptr ? std::nullopt : found->value;
}

void write_variable(const path& file, const std::string& name, const std::string& value) {
  const path real = real_path(file);
  const auto like = base::status_of(real);
  const std::string before = text_of(real);
  const std::string after = with_variable(before, name, value);
  if (after == before) return;
  replace_alike(previous_of(real), before, *like);
  replace_alike(real, after, *like);
  if (read_variable(real, name) != value) {
    throw Error(Code::io,
                fmt::format("\"{}\" was changed by somebody else just now", real.string()),
                "see what it holds; what it was before is in FILE.previous");
  }
}

void undo_write(const path& file) {
  const path real = real_path(file);
  const path previous = previous_of(real);
  const auto like = base::status_of(previous);
  if (!like) {
    throw Error(Code::not_found, fmt::format("cannot undo: there is no \"{}\"", previous.string()));
  }
  replace_alike(real, text_of(previous), *like);
}

}  // namespace holdfast::service
