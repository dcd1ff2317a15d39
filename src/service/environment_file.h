#pragma once

// An environment file (env_file of docker compose, EnvironmentFile of systemd): one variable is
// changed, and everything else stays byte for byte.
//
// What is written, compose reads back exactly: in single quotes, in which `$` and `#` mean nothing
// and `'` is \'; only a value with a line break, or with a backslash at its end or before a quote,
// needs double quotes and escapes. Each text is parsed again before it is written: the variable is
// what it should be, and the others are what they were.
//
// The parser knows the rules of compose-go: comments, `export`, `=` and `:`, spaces around them,
// unquoted values with inline comments, single and double quotes over several lines, interpolation
// of what stands before, CRLF, a byte order mark; of duplicates the last one counts. What it cannot
// understand is an error that names the line, never its content, as that may be a secret.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"

namespace holdfast::service {

struct EnvironmentVariable {
  std::string name;
  /// nullopt: only its name is there (compose takes it from its own environment), or its value
  /// depends on an interpolation that the file alone does not answer.
  std::optional<std::string> value;
  std::size_t value_begin = 0;  ///< in the text, quotes included
  std::size_t value_end = 0;
  bool assigned = true;  ///< false: only its name is there
  std::size_t line = 0;  ///< where it begins; counts from 1
};

/// All, in their order. Throws Error(configuration), which names `where` and the line.
std::vector<EnvironmentVariable> parse_environment(std::string_view text,
                                                   std::string_view where = "the environment file");

using EnvironmentValues = std::vector<std::pair<std::string, std::string>>;

/// What compose would give a container, in the order of the file; of several with one name the last
/// one. Names alone are left out. Throws Error(configuration), without the value, for one that
/// depends on where it is read.
EnvironmentValues environment_values(std::string_view text, std::string_view where);

/// A file that is read back as exactly these.
std::string environment_text(const EnvironmentValues& values);

/// Letters, digits and "_", no digit first: what a shell can name, too.
bool is_variable_name(std::string_view name);

/// The text with `name` set to `value`: where it is set last, else in a new line at the end. Throws
/// Error(usage) for what no such file can hold (a byte 0, a name that is none).
std::string with_variable(std::string_view text, const std::string& name, const std::string& value);

/// The value that counts. nullopt if it is not set in the file; Error(not_found) without a file.
std::optional<std::string> read_variable(const base::fs::path& file, const std::string& name);

/// Sets it in the file, in one step and durably; mode and owner stay, and a symbolic link stays
/// one. What was there before is kept as FILE.previous, with the same mode and owner.
void write_variable(const base::fs::path& file, const std::string& name, const std::string& value);

/// Makes the file what it was before the last write_variable. Error(not_found) if nothing was kept.
void undo_write(const base::fs::path& file);

}  // namespace holdfast::service
