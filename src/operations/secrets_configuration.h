#pragma once

// [secrets]: which secrets there are, where they come from, and to whom they are sealed.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/section.h"

namespace holdfast::operations {

/// What is at stake if one of its kind is known to others; `rotate-plan` goes by it.
extern const std::vector<std::string> secret_classes;

/// [secrets.about.NAME]
struct SecretAbout {
  std::string name;
  std::string kind;  ///< "class" in the file: one of secret_classes
  std::string owner;
  std::optional<bool> rotate;        ///< after a recovery, whatever its class says
  std::vector<std::string> targets;  ///< where it may be restored to; empty: anywhere it fits
};

struct SecretsConfiguration {
  std::vector<std::string> recipients;  ///< public keys of age
  std::vector<std::string> offline;     ///< the same, of identities that are kept off line
  std::vector<base::fs::path> env_files;
  std::vector<std::pair<std::string, base::fs::path>> files;
  std::vector<std::pair<std::string, std::string>> commands;
  std::vector<SecretAbout> about;

  bool has_sources() const { return !env_files.empty() || !files.empty() || !commands.empty(); }
};

/// Paths are relative to the configuration's own directory.
SecretsConfiguration read_secrets(const base::TomlFile& file, const toml::table& table);

/// Where `secrets restore` can put them.
extern const std::vector<std::string> secret_target_kinds;

}  // namespace holdfast::operations
