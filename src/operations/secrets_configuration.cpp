#include "operations/secrets_configuration.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace holdfast::operations {

namespace {

using base::Section;
using base::TomlFile;

bool has(const std::vector<std::string>& list, const std::string& word) {
  return std::ranges::find(list, word) != list.end();
}

std::vector<std::string> read_recipients(Section& section, std::string_view key) {
  std::vector<std::string> recipients = section.texts(key);
  for (const std::string& each : recipients) {
    if (each.starts_with("AGE-SECRET-KEY")) {
      section.refuse(fmt::format("\"{}\" has a secret key of age", key),
                     "write the public key (age1...) that belongs to it, and make a new pair: "
                     "this one has been read");
    }
    const bool good =
        each.starts_with("age1") && each.size() > 20 &&
        each.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos;
    if (!good) {
      section.refuse(fmt::format("\"{}\" has \"{}\", which is no public key of age", key, each),
                     "`age-keygen -o identity.txt` makes a pair and prints the public key");
    }
  }
  return recipients;
}

/// A name becomes a file, a variable, or part of a path in a store.
void check_name(const Section& section, const std::string& name) {
  constexpr std::string_view letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
  if (name.empty() || name.size() > 200 || name.front() == '.' ||
      name.find_first_not_of(letters) != std::string::npos) {
    section.refuse(fmt::format("\"{}\" cannot be the name of a secret", name),
                   "use letters, digits, \"_\", \"-\" and \".\"");
  }
}

SecretAbout read_about(const TomlFile& file, const std::string& name, const toml::table& table) {
  Section section(file, table, "secrets.about." + name);
  SecretAbout about;
  about.name = name;
  about.kind = section.text("class");
  about.owner = section.text("owner");
  about.rotate = section.flag("rotate");
  about.targets = section.texts("targets");
  section.refuse_other_keys();
  if (!about.kind.empty() && !has(secret_classes, about.kind)) {
    section.refuse(fmt::format("unknown class \"{}\"", about.kind),
                   fmt::format("it may be: {}", fmt::join(secret_classes, ", ")));
  }
  for (const std::string& each : about.targets) {
    if (has(secret_target_kinds, each)) continue;
    section.refuse(fmt::format("unknown target \"{}\"", each),
                   fmt::format("it may be: {}", fmt::join(secret_target_kinds, ", ")));
  }
  return about;
}

}  // namespace

const std::vector<std::string> secret_classes = {"database", "tunnel",     "session",
                                                 "webhook",  "storage",    "tls",
                                                 "provider", "encryption", "public"};

const std::vector<std::string> secret_target_kinds = {"envfile", "compose-secrets", "aws-sm",
                                                      "vault"};

SecretsConfiguration read_secrets(const TomlFile& file, const toml::table& table) {
  Section section(file, table, "secrets");
  const auto full = [&](const std::string& path) {
    return (file.path.parent_path() / path).lexically_normal();
  };
  SecretsConfiguration secrets;
  secrets.recipients = read_recipients(section, "recipients");
  secrets.offline = read_recipients(section, "offline");
  for (const std::string& each : section.texts("env_files"))
    secrets.env_files.push_back(full(each));
  for (const auto& [name, path] : section.text_pairs("files")) {
    check_name(section, name);
    secrets.files.emplace_back(name, full(path));
  }
  for (const auto& [name, command] : section.text_pairs("commands")) {
    check_name(section, name);
    secrets.commands.emplace_back(name, command);
  }
  for (const auto& [name, about] : section.named_tables("about")) {
    secrets.about.push_back(read_about(file, name, *about));
  }
  section.refuse_other_keys();
  return secrets;
}

}  // namespace holdfast::operations
