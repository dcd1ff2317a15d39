#include "operations/configuration.h"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/time.h"
#include "repository/repository.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

[[noreturn]] void refuse(const base::fs::path& path, const toml::source_region& where,
                         std::string_view why, std::string hint = {}) {
  if (hint.empty()) hint = "README.md shows a configuration; `holdfast init` writes a new one";
  throw Error(Code::configuration, fmt::format("{}:{}: {}", path.string(), where.begin.line, why),
              std::move(hint));
}

std::string joined(const std::set<std::string_view>& names) {
  std::string text;
  for (const std::string_view name : names) {
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text;
}

/// Of clusters or repositories.
std::set<std::string_view> names_of(const auto& sections) {
  std::set<std::string_view> names;
  for (const auto& each : sections) names.insert(each.name);
  return names;
}

/// One table of the file: every key must be asked for, or it is unknown.
class Section {
 public:
  Section(const base::fs::path& path, const toml::table& table, std::string name)
      : path_(path), table_(table), name_(std::move(name)) {}

  std::string text(std::string_view key) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return {};
    const auto value = node->value<std::string>();
    if (!node->is_string()) {
      refuse(path_, node->source(), fmt::format("\"{}\" must be text in quotes", key));
    }
    if (value->empty()) refuse(path_, node->source(), fmt::format("\"{}\" is empty", key));
    return *value;
  }

  std::string required(std::string_view key) {
    std::string value = text(key);
    if (value.empty()) {
      refuse(path_, table_.source(), fmt::format("[{}] needs \"{}\"", name_, key));
    }
    return value;
  }

  /// A positive duration ("7d").
  std::optional<base::Microseconds> duration(std::string_view key) {
    const std::string value = text(key);
    if (value.empty()) return std::nullopt;
    try {
      const base::Microseconds duration = base::parse_duration(value);
      if (duration > base::Microseconds(0)) return duration;
    } catch (const Error& error) {
      refuse(path_, table_.get(key)->source(), fmt::format("\"{}\": {}", key, error.message()),
             error.hint());
    }
    refuse(path_, table_.get(key)->source(), fmt::format("\"{}\" must be longer than that", key));
  }

  /// A whole number above 0.
  std::optional<std::uint32_t> count(std::string_view key) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    const auto value = node->is_integer() ? node->value<std::int64_t>() : std::nullopt;
    if (!value || *value < 1 || *value > 1'000'000) {
      refuse(path_, node->source(),
             fmt::format("\"{}\" must be a whole number from 1 to 1000000", key));
    }
    return static_cast<std::uint32_t>(*value);
  }

  /// Is the value text?
  bool is_text(std::string_view key) const {
    const toml::node* node = table_.get(key);
    return node != nullptr && node->is_string();
  }

  /// The tables of [[NAME.KEY]].
  std::vector<const toml::table*> tables(std::string_view key) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    std::vector<const toml::table*> found;
    if (node == nullptr) return found;
    if (!node->is_array_of_tables()) {
      refuse(path_, node->source(),
             fmt::format("\"{}\" must be written as [[{}.{}]]", key, name_, key));
    }
    for (const toml::node& each : *node->as_array()) found.push_back(each.as_table());
    return found;
  }

  void refuse_other_keys() const {
    for (const auto& [key, node] : table_) {
      if (known_.contains(key.str())) continue;
      refuse(path_, node.source(), fmt::format("unknown key \"{}\" in [{}]", key.str(), name_),
             "it may have: " + joined(known_));
    }
  }

  const toml::source_region& where() const { return table_.source(); }

 private:
  const base::fs::path& path_;
  const toml::table& table_;
  std::string name_;
  std::set<std::string_view> known_;
};

ClusterConfiguration read_cluster(const base::fs::path& path, const std::string& name,
                                  const toml::table& table) {
  Section section(path, table, "cluster." + name);
  if (!repository::is_cluster_name(name)) {
    refuse(path, section.where(), fmt::format("\"{}\" cannot be the name of a cluster", name),
           "use letters, digits, \"-\" and \"_\"");
  }
  ClusterConfiguration cluster;
  cluster.name = name;
  const std::string kind = section.text("kind");
  if (!kind.empty() && kind != "postgres") {
    refuse(path, section.where(), fmt::format("unknown kind \"{}\"", kind), "use \"postgres\"");
  }
  cluster.connection = section.required("connection");
  cluster.data_directory = section.text("data_directory");
  if (!cluster.data_directory.empty() && !cluster.data_directory.is_absolute()) {
    refuse(path, section.where(), "data_directory must be an absolute path");
  }
  section.refuse_other_keys();
  return cluster;
}

RepositoryConfiguration read_repository(const base::fs::path& path, const std::string& name,
                                        const toml::table& table) {
  Section section(path, table, "repository." + name);
  RepositoryConfiguration repository;
  repository.name = name;
  repository.url = section.required("url");
  repository.key.key_file = section.text("key_file");
  repository.key.key_command = section.text("key_command");
  const std::string encryption = section.text("encryption");
  section.refuse_other_keys();
  if (!repository.key.key_file.empty() && !repository.key.key_command.empty()) {
    refuse(path, section.where(), "key_file and key_command exclude each other");
  }
  if (!encryption.empty() && encryption != "none") {
    refuse(path, section.where(), fmt::format("unknown encryption \"{}\"", encryption),
           "leave it out for AES-256-GCM, or set it to \"none\"");
  }
  repository.encrypted = encryption != "none";
  if (!repository.encrypted) {
    if (!repository.key.empty()) {
      refuse(path, section.where(), "encryption = \"none\" and a key exclude each other");
    }
    return repository;
  }
  if (repository.key.empty()) {
    const char* passphrase = std::getenv("HOLDFAST_PASSPHRASE");
    if (passphrase != nullptr) repository.key.passphrase = passphrase;
  }
  return repository;
}

KeepRules read_keep(const base::fs::path& path, const toml::table& table) {
  Section section(path, table, "keep");
  KeepRules keep;
  if (section.is_text("backups")) {
    keep.age = section.duration("backups");
  } else {
    keep.count = section.count("backups");
  }
  keep.daily = section.count("daily").value_or(0);
  keep.weekly = section.count("weekly").value_or(0);
  keep.monthly = section.count("monthly").value_or(0);
  keep.yearly = section.count("yearly").value_or(0);
  keep.window = section.duration("window");
  keep.snapshots = section.duration("snapshots").value_or(keep.snapshots);
  section.refuse_other_keys();
  return keep;
}

Objectives read_objectives(const base::fs::path& path, const toml::table& root) {
  Objectives objectives;
  const toml::node* node = root.get("objectives");
  if (node == nullptr) return objectives;
  if (!node->is_table()) refuse(path, node->source(), "\"objectives\" must be a table");
  Section section(path, *node->as_table(), "objectives");
  const std::string rpo = section.text("rpo");
  const std::string every = section.text("drill_every");
  objectives.rto = section.duration("rto");
  if (every == "off") {
    objectives.drill_every.reset();
  } else if (!every.empty()) {
    objectives.drill_every = section.duration("drill_every");
  }
  section.refuse_other_keys();
  try {
    if (!rpo.empty()) objectives.rpo = base::parse_duration(rpo);
  } catch (const Error& error) {
    refuse(path, section.where(), error.message(), error.hint());
  }
  return objectives;
}

DrillAssertion read_assertion(const base::fs::path& path, const toml::table& table) {
  Section section(path, table, "drill.check");
  DrillAssertion assertion;
  assertion.name = section.required("name");
  assertion.database = section.required("database");
  assertion.sql = section.required("sql");
  assertion.expect = section.required("expect");
  section.refuse_other_keys();
  return assertion;
}

/// Paths are relative to the configuration's own directory.
DrillConfiguration read_drill(const base::fs::path& path, const toml::table* table) {
  const toml::table none;
  Section section(path, table == nullptr ? none : *table, "drill");
  const auto file = [&](std::string_view key, std::string_view otherwise) {
    const std::string given = section.text(key);
    return (path.parent_path() / (given.empty() ? std::string(otherwise) : given))
        .lexically_normal();
  };
  DrillConfiguration drill;
  drill.evidence = file("evidence", "docs/audit/restore-drills");
  drill.signing_key = file("signing_key", "holdfast-drill.key");
  drill.directory = file("directory", "/var/tmp");
  drill.heartbeat = section.text("heartbeat");
  if (!drill.heartbeat.empty() && std::ranges::count(drill.heartbeat, '.') != 2) {
    refuse(path, section.where(), "\"heartbeat\" must name \"database.schema.table\"");
  }
  const std::string amcheck = section.text("amcheck");
  if (!amcheck.empty() && amcheck != "off") {
    refuse(path, section.where(), "\"amcheck\" can only be \"off\"; leave it out to have it");
  }
  drill.amcheck = amcheck.empty();
  drill.api = section.text("api");
  drill.ready = section.text("ready");
  if (drill.api.empty() != drill.ready.empty()) {
    refuse(path, section.where(), "\"api\" and \"ready\" need each other");
  }
  const std::string database = section.text("api_database");
  if (!database.empty()) drill.api_database = database;
  drill.ready_within = section.duration("ready_within").value_or(drill.ready_within);
  for (const toml::table* each : section.tables("check")) {
    drill.assertions.push_back(read_assertion(path, *each));
  }
  section.refuse_other_keys();
  return drill;
}

WalConfiguration read_wal(const base::fs::path& path, const toml::table& table) {
  Section section(path, table, "wal");
  WalConfiguration wal;
  const std::string slot = section.text("slot");
  wal.slice_interval = section.duration("slice_interval").value_or(wal.slice_interval);
  wal.copies = static_cast<std::uint32_t>(section.count("copies").value_or(1));
  section.refuse_other_keys();
  if (!slot.empty()) wal.slot = slot;
  const bool good = slot.size() < 64 && slot.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyz"
                                            "0123456789_") == std::string::npos;
  if (!good) {
    refuse(path, section.where(), fmt::format("\"{}\" cannot be the name of a slot", slot),
           "use lower-case letters, digits and \"_\"");
  }
  return wal;
}

/// However often a path says "/" or "." on its way.
bool same_place(std::string_view one, std::string_view other) {
  const auto normal = [](std::string_view url) {
    std::string text = base::fs::path(url).lexically_normal().string();
    while (text.ends_with('/')) text.pop_back();
    return text;
  };
  return normal(one) == normal(other);
}

void refuse_unknown_sections(const base::fs::path& path, const toml::table& root) {
  for (const auto& [key, node] : root) {
    const std::string_view name = key.str();
    if (name == "cluster" || name == "repository" || name == "objectives" || name == "wal")
      continue;
    if ((name == "keep" || name == "drill") && node.is_table()) continue;
    refuse(path, node.source(), fmt::format("unknown key \"{}\"", name),
           "a configuration has [cluster.NAME], [repository.NAME], [keep], [wal], [objectives] and "
           "[drill]");
  }
}

}  // namespace

const ClusterConfiguration& Configuration::cluster(const std::string& name) const {
  if (name.empty()) {
    if (clusters.size() == 1) return clusters.front();
    throw Error(Code::usage,
                fmt::format("cannot tell which cluster is meant: {} has {}", path.string(),
                            clusters.size()),
                "name it with --cluster");
  }
  for (const ClusterConfiguration& each : clusters) {
    if (each.name == name) return each;
  }
  throw Error(Code::not_found, fmt::format("cannot find cluster \"{}\" in {}", name, path.string()),
              "it has: " + joined(names_of(clusters)));
}

const RepositoryConfiguration& Configuration::repository() const {
  return repositories.front();
}

base::fs::path find_configuration(const std::string& given) {
  const auto must_exist = [](const std::string& path, std::string_view source) {
    const auto status = base::status_of(path);
    if (status && S_ISDIR(status->st_mode)) {
      throw Error(Code::configuration,
                  fmt::format("cannot read \"{}\" ({}): it is a directory", path, source),
                  "name the file: " + (base::fs::path(path) / "holdfast.toml").string());
    }
    if (status) return base::fs::absolute(path);
    throw Error(Code::configuration,
                fmt::format("could not read \"{}\" ({}): there is no such file", path, source),
                "create it with `holdfast init`");
  };
  if (!given.empty()) return must_exist(given, "--config");
  const char* variable = std::getenv("HOLDFAST_CONFIG");
  if (variable != nullptr && *variable != '\0') return must_exist(variable, "HOLDFAST_CONFIG");
  for (const char* path : {"holdfast.toml", "/etc/holdfast/holdfast.toml"}) {
    if (base::status_of(path)) return base::fs::absolute(path);
  }
  throw Error(Code::configuration,
              "could not find a configuration: there is neither ./holdfast.toml nor "
              "/etc/holdfast/holdfast.toml",
              "create one with `holdfast init`, or name it with --config");
}

Configuration read_configuration(const base::fs::path& path) {
  return parse_configuration(base::text(base::read_existing_file(path)), path);
}

Configuration parse_configuration(std::string_view text, const base::fs::path& path) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    refuse(path, error.source(), error.description());
  }
  refuse_unknown_sections(path, root);
  Configuration configuration;
  configuration.path = path;
  configuration.objectives = read_objectives(path, root);
  const auto each_table = [&](std::string_view kind, const auto& read) {
    const toml::table* tables = root.get_as<toml::table>(kind);
    if (tables == nullptr) {
      throw Error(Code::configuration,
                  fmt::format("{}: there is no [{}.NAME]", path.string(), kind),
                  "README.md shows a configuration; `holdfast init` writes a new one");
    }
    // In the order of the file, which is the order in which repositories are asked.
    std::vector<std::pair<std::string, const toml::table*>> in_order;
    for (const auto& [name, node] : *tables) {
      if (!node.is_table()) {
        refuse(path, node.source(),
               fmt::format("\"{}\" stands outside of a [{}.NAME]", name.str(), kind));
      }
      in_order.emplace_back(name.str(), node.as_table());
    }
    std::ranges::stable_sort(in_order, {},
                             [](const auto& each) { return each.second->source().begin.line; });
    for (const auto& [name, table] : in_order) read(name, *table);
  };
  each_table("cluster", [&](const std::string& name, const toml::table& table) {
    configuration.clusters.push_back(read_cluster(path, name, table));
  });
  each_table("repository", [&](const std::string& name, const toml::table& table) {
    RepositoryConfiguration repository = read_repository(path, name, table);
    for (const RepositoryConfiguration& other : configuration.repositories) {
      if (!same_place(repository.url, other.url)) continue;
      refuse(path, table.source(),
             fmt::format("[repository.{}] is the same place as [repository.{}]", name, other.name),
             "a second copy of everything must be somewhere else");
    }
    configuration.repositories.push_back(std::move(repository));
  });
  if (const toml::table* keep = root.get_as<toml::table>("keep")) {
    configuration.keep = read_keep(path, *keep);
  }
  configuration.drill = read_drill(path, root.get_as<toml::table>("drill"));
  if (const toml::node* wal = root.get("wal")) {
    if (!wal->is_table()) refuse(path, wal->source(), "\"wal\" must be a section: [wal]");
    configuration.wal = read_wal(path, *wal->as_table());
  }
  if (configuration.wal.copies > configuration.repositories.size()) {
    throw Error(
        Code::configuration,
        fmt::format("{}: [wal] wants {} copies, but the number of repositories is {}",
                    path.string(), configuration.wal.copies, configuration.repositories.size()),
        "add a [repository.NAME], or ask for fewer copies");
  }
  return configuration;
}

const std::string_view default_keep =
    "\n"
    "[keep]\n"
    "backups = \"7d\"\n"
    "snapshots = \"30d\"\n";

namespace {

std::string quoted(const std::string& value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

std::string write_configuration(const ClusterConfiguration& cluster,
                                const RepositoryConfiguration& repository) {
  std::string text = fmt::format(
      "[cluster.{}]\n"
      "connection = {}\n"
      "{}"
      "\n"
      "[repository.{}]\n"
      "url = {}\n",
      cluster.name, quoted(cluster.connection),
      cluster.data_directory.empty()
          ? "# No data_directory: backups come through the connection, by replication.\n"
          : fmt::format("data_directory = {}\n", quoted(cluster.data_directory.string())),
      repository.name, quoted(repository.url));
  if (!repository.key.key_file.empty()) {
    text += fmt::format("key_file = {}\n", quoted(repository.key.key_file));
  } else if (!repository.key.key_command.empty()) {
    text += fmt::format("key_command = {}\n", quoted(repository.key.key_command));
  } else if (!repository.encrypted) {
    text += "encryption = \"none\"\n";
  } else {
    text += "# The passphrase is read from HOLDFAST_PASSPHRASE.\n";
  }
  return text;
}

}  // namespace holdfast::operations
