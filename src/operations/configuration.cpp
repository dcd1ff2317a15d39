#include "operations/configuration.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/section.h"
#include "base/time.h"
#include "repository/repository.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::joined;
using base::Section;
using base::TomlFile;

/// Of clusters or repositories.
std::set<std::string_view> names_of(const auto& sections) {
  std::set<std::string_view> names;
  for (const auto& each : sections) names.insert(each.name);
  return names;
}

ClusterConfiguration read_cluster(const TomlFile& file, const std::string& name,
                                  const toml::table& table) {
  Section section(file, table, "cluster." + name);
  if (!repository::is_cluster_name(name)) {
    section.refuse(fmt::format("\"{}\" cannot be the name of a cluster", name),
                   "use letters, digits, \"-\" and \"_\"");
  }
  ClusterConfiguration cluster;
  cluster.name = name;
  const std::string kind = section.text("kind");
  if (!kind.empty() && kind != "postgres") {
    section.refuse(fmt::format("unknown kind \"{}\"", kind), "use \"postgres\"");
  }
  cluster.connection = section.required("connection");
  cluster.data_directory = section.text("data_directory");
  if (!cluster.data_directory.empty() && !cluster.data_directory.is_absolute()) {
    section.refuse("data_directory must be an absolute path");
  }
  section.refuse_other_keys();
  return cluster;
}

RepositoryConfiguration read_repository(const TomlFile& file, const std::string& name,
                                        const toml::table& table) {
  Section section(file, table, "repository." + name);
  RepositoryConfiguration repository;
  repository.name = name;
  repository.url = section.required("url");
  repository.key.key_file = section.text("key_file");
  repository.key.key_command = section.text("key_command");
  const std::string encryption = section.text("encryption");
  section.refuse_other_keys();
  if (!repository.key.key_file.empty() && !repository.key.key_command.empty()) {
    section.refuse("key_file and key_command exclude each other");
  }
  if (!encryption.empty() && encryption != "none") {
    section.refuse(fmt::format("unknown encryption \"{}\"", encryption),
                   "leave it out for AES-256-GCM, or set it to \"none\"");
  }
  repository.encrypted = encryption != "none";
  if (!repository.encrypted) {
    if (!repository.key.empty()) {
      section.refuse("encryption = \"none\" and a key exclude each other");
    }
    return repository;
  }
  if (repository.key.empty()) {
    const char* passphrase = std::getenv("HOLDFAST_PASSPHRASE");
    if (passphrase != nullptr) repository.key.passphrase = passphrase;
  }
  return repository;
}

KeepRules read_keep(const TomlFile& file, const toml::table& table) {
  Section section(file, table, "keep");
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

/// "99.5%" is 0.995.
double share_of(const Section& section, const std::string& text) {
  double percent = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, percent);
  if (error != std::errc() || std::string_view(stop, end) != "%" ||
      !(percent > 0 && percent < 100)) {
    section.refuse(fmt::format("\"{}\" is not a share that can be kept", text),
                   "write uptime = \"99.5%\"");
  }
  return percent / 100;
}

service::ProbeSettings read_probe(const TomlFile& file, const std::string& name,
                                  const toml::table& table) {
  Section section(file, table, "probe." + name);
  if (!repository::is_cluster_name(name)) {
    section.refuse(fmt::format("\"{}\" cannot be the name of a probe", name),
                   "use letters, digits, \"-\" and \"_\"");
  }
  service::ProbeSettings probe;
  probe.name = name;
  probe.url = section.text("url");
  probe.connection = section.text("connection");
  probe.sql = section.text("sql");
  const bool is_web = !probe.url.empty();
  const bool is_sql = !probe.connection.empty() && !probe.sql.empty();
  if (is_web == is_sql || (is_web && !(probe.connection + probe.sql).empty())) {
    section.refuse("a probe needs a \"url\", or a \"connection\" and \"sql\"");
  }
  probe.expect = section.text("expect");
  if (is_web && !probe.expect.empty() &&
      (probe.expect.size() != 3 ||
       probe.expect.find_first_not_of("0123456789") != std::string::npos)) {
    section.refuse("\"expect\" of a \"url\" must be a status such as \"200\"");
  }
  probe.interval = section.duration("interval").value_or(probe.interval);
  probe.limit = section.duration("timeout").value_or(std::min(probe.limit, probe.interval));
  if (probe.interval < std::chrono::seconds(1) || probe.interval > std::chrono::hours(6)) {
    section.refuse("\"interval\" must be from 1s to 6h");
  }
  if (probe.limit > probe.interval) section.refuse("\"timeout\" must not exceed \"interval\"");
  section.refuse_other_keys();
  return probe;
}

FilesConfiguration read_files(const TomlFile& file, const std::string& name,
                              const toml::table& table) {
  Section section(file, table, "files." + name);
  if (!repository::is_cluster_name(name)) {
    section.refuse(fmt::format("\"{}\" cannot be the name of files", name),
                   "use letters, digits, \"-\" and \"_\"");
  }
  FilesConfiguration files;
  files.name = name;
  const base::fs::path path = (file.path.parent_path() / section.required("path"));
  files.path = path.lexically_normal();
  if (!files.path.has_filename()) files.path = files.path.parent_path();  // "/etc/service/"
  if (files.path == files.path.root_path()) section.refuse("\"path\" cannot be all there is");
  files.keep = section.duration("keep").value_or(files.keep);
  if (files.keep <= base::Microseconds(0)) section.refuse("\"keep\" must be more than nothing");
  section.refuse_other_keys();
  return files;
}

/// Beside the evidence of drills unless it is said.
base::fs::path read_history(const TomlFile& file, const toml::table* table,
                            const base::fs::path& evidence) {
  if (table == nullptr) return evidence.parent_path() / "probes.sqlite";
  Section section(file, *table, "history");
  const std::string path = section.required("file");
  section.refuse_other_keys();
  return (file.path.parent_path() / path).lexically_normal();
}

Objectives read_objectives(const TomlFile& file, const toml::table& table) {
  Objectives objectives;
  Section section(file, table, "objectives");
  const std::string rpo = section.text("rpo");
  const std::string every = section.text("drill_every");
  objectives.rto = section.duration("rto");
  if (every == "off") {
    objectives.drill_every.reset();
  } else if (!every.empty()) {
    objectives.drill_every = section.duration("drill_every");
  }
  const std::string uptime = section.text("uptime");
  if (!uptime.empty()) objectives.uptime = share_of(section, uptime);
  section.refuse_other_keys();
  try {
    if (!rpo.empty()) objectives.rpo = base::parse_duration(rpo);
  } catch (const Error& error) {
    section.refuse(error.message(), error.hint());
  }
  return objectives;
}

DrillAssertion read_assertion(const TomlFile& file, const toml::table& table) {
  Section section(file, table, "drill.check");
  DrillAssertion assertion;
  assertion.name = section.required("name");
  assertion.database = section.required("database");
  assertion.sql = section.required("sql");
  assertion.expect = section.required("expect");
  section.refuse_other_keys();
  return assertion;
}

/// Paths are relative to the configuration's own directory.
DrillConfiguration read_drill(const TomlFile& file, const toml::table* table) {
  const toml::table none;
  Section section(file, table == nullptr ? none : *table, "drill");
  const auto path = [&](std::string_view key, std::string_view otherwise) {
    const std::string given = section.text(key);
    return (file.path.parent_path() / (given.empty() ? std::string(otherwise) : given))
        .lexically_normal();
  };
  DrillConfiguration drill;
  drill.evidence = path("evidence", "docs/audit/restore-drills");
  drill.signing_key = path("signing_key", "holdfast-drill.key");
  drill.directory = path("directory", "/var/tmp");
  drill.heartbeat = section.text("heartbeat");
  if (!drill.heartbeat.empty() && std::ranges::count(drill.heartbeat, '.') != 2) {
    section.refuse("\"heartbeat\" must name \"database.schema.table\"");
  }
  const std::string amcheck = section.text("amcheck");
  if (!amcheck.empty() && amcheck != "off") {
    section.refuse("\"amcheck\" can only be \"off\"; leave it out to have it");
  }
  drill.amcheck = amcheck.empty();
  drill.api = section.text("api");
  drill.ready = section.text("ready");
  if (drill.api.empty() != drill.ready.empty()) {
    section.refuse("\"api\" and \"ready\" need each other");
  }
  const std::string database = section.text("api_database");
  if (!database.empty()) drill.api_database = database;
  drill.ready_within = section.duration("ready_within").value_or(drill.ready_within);
  for (const toml::table* each : section.tables("check")) {
    drill.assertions.push_back(read_assertion(file, *each));
  }
  section.refuse_other_keys();
  return drill;
}

WalConfiguration read_wal(const TomlFile& file, const toml::table& table) {
  Section section(file, table, "wal");
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
    section.refuse(fmt::format("\"{}\" cannot be the name of a slot", slot),
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

using NamedTables = std::vector<std::pair<std::string, const toml::table*>>;

/// The tables [KIND.NAME], in the order of the file: the one in which repositories are asked.
NamedTables some_tables(Section& root, const TomlFile& file, std::string_view kind) {
  NamedTables tables = root.named_tables(kind);
  if (!tables.empty()) return tables;
  throw Error(Code::configuration,
              fmt::format("{}: there is no [{}.NAME]", file.path.string(), kind), file.hint);
}

void refuse_same_places(const TomlFile& file, const NamedTables& tables,
                        const std::vector<RepositoryConfiguration>& repositories) {
  for (std::size_t i = 0; i < repositories.size(); ++i) {
    for (std::size_t other = 0; other < i; ++other) {
      if (!same_place(repositories[i].url, repositories[other].url)) continue;
      file.refuse(tables[i].second->source(),
                  fmt::format("[repository.{}] is the same place as [repository.{}]",
                              repositories[i].name, repositories[other].name),
                  "a second copy of everything must be somewhere else");
    }
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
  const TomlFile file{path, "README.md shows a configuration; `holdfast init` writes a new one"};
  const toml::table table = file.parse(text);
  Section root(file, table, "");
  Configuration configuration;
  configuration.path = path;
  for (const auto& [name, each] : some_tables(root, file, "cluster")) {
    configuration.clusters.push_back(read_cluster(file, name, *each));
  }
  const NamedTables repositories = some_tables(root, file, "repository");
  for (const auto& [name, each] : repositories) {
    configuration.repositories.push_back(read_repository(file, name, *each));
  }
  refuse_same_places(file, repositories, configuration.repositories);
  if (const auto* keep = root.table("keep")) configuration.keep = read_keep(file, *keep);
  if (const auto* wal = root.table("wal")) configuration.wal = read_wal(file, *wal);
  if (const auto* objectives = root.table("objectives")) {
    configuration.objectives = read_objectives(file, *objectives);
  }
  configuration.drill = read_drill(file, root.table("drill"));
  if (const auto* secrets = root.table("secrets")) {
    configuration.secrets = read_secrets(file, *secrets);
  }
  configuration.recover = read_recover(file, root.table("recover"));
  for (const auto& [name, each] : root.named_tables("probe")) {
    configuration.probes.push_back(read_probe(file, name, *each));
  }
  for (const auto& [name, each] : root.named_tables("files")) {
    configuration.files.push_back(read_files(file, name, *each));
  }
  configuration.probe_history =
      read_history(file, root.table("history"), configuration.drill.evidence);
  configuration.schedule = read_schedule(file, root.table("schedule"));
  configuration.alert = read_alert(file, root.table("alert"));
  configuration.serve = read_serve(file, root.table("serve"), configuration.drill.evidence);
  root.refuse_other_keys();
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
