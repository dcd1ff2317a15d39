#pragma once

// The text of a server's configuration files: postgresql.conf and what it includes (guc-file.l),
// and what pg_hba.conf and pg_ident.conf refer to (hba.c). Read as the server reads them, so that
// they can be taken along and changed where they name a place. Nothing here reads a file.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::postgres {

struct ConfigurationLine {
  std::string_view text;             ///< as it stands there, with its line feed if it has one
  std::string name;                  ///< in lower case; empty: it sets nothing
  std::optional<std::string> value;  ///< nullopt: the server could not read it
};
/// All lines; together their texts are the whole text.
std::vector<ConfigurationLine> configuration_lines(std::string_view text);

enum class Include { file, file_if_exists, directory };
/// Is this the name of a directive ("include_dir"), and of which?
std::optional<Include> include_directive(std::string_view name);

/// Does the server read a file of this name in an included directory?
bool is_included_name(std::string_view name);

/// A file that pg_hba.conf or pg_ident.conf, or a list of names of theirs, refers to.
struct AccessReference {
  Include kind = Include::file;
  bool list = false;  ///< "@names": a list of names, not of lines
  std::string path;
  std::size_t begin = 0;  ///< where the reference stands in the text, "@" included
  std::size_t end = 0;
};
std::vector<AccessReference> access_references(std::string_view text);
/// How a reference to `path` must be written.
std::string to_string(const AccessReference& reference, std::string_view path);

/// "on", "yes", "true", "1" and their beginnings.
bool is_true(std::string_view value);

/// ASCII only, as the server compares names.
std::string lower_case(std::string_view text);

}  // namespace holdfast::postgres
