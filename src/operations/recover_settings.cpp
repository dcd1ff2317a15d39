#include "operations/recover_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace holdfast::operations {

namespace {

using base::Section;
using base::TomlFile;
using base::fs::path;
using std::chrono::hours;
using std::chrono::minutes;

struct StepName {
  std::string_view name;
  base::Microseconds limit;
};
constexpr std::array<StepName, recovery_steps> names{{{"fence", minutes(2)},
                                                      {"target", minutes(5)},
                                                      {"provision", minutes(30)},
                                                      {"secrets", minutes(2)},
                                                      {"files", minutes(10)},
                                                      {"restore", hours(4)},
                                                      {"replay", hours(4)},
                                                      {"prove", minutes(15)},
                                                      {"start", minutes(5)},
                                                      {"environment", minutes(1)},
                                                      {"deploy", minutes(10)},
                                                      {"ready", minutes(2)},
                                                      {"proof", minutes(1)},
                                                      {"smoke", minutes(10)},
                                                      {"reconnect", minutes(15)},
                                                      {"backup", hours(4)}}};

const StepName& entry(RecoveryStep step) {
  return names.at(static_cast<std::size_t>(step));
}

template <typename Value>
std::optional<Value> find(const std::vector<std::pair<RecoveryStep, Value>>& list,
                          RecoveryStep step) {
  const auto found = std::ranges::find(list, step, &std::pair<RecoveryStep, Value>::first);
  if (found == list.end()) return std::nullopt;
  return found->second;
}

class Reader {
 public:
  Reader(const TomlFile& file, Section& section) : file_(file), section_(section) {}

  path place(std::string_view key, std::string_view otherwise = {}) {
    const std::string given = section_.text(key);
    if (given.empty() && otherwise.empty()) return {};
    return (file_.path.parent_path() / (given.empty() ? std::string(otherwise) : given))
        .lexically_normal();
  }

  std::vector<std::pair<RecoveryStep, std::string>> lines(std::string_view key) {
    std::vector<std::pair<RecoveryStep, std::string>> found;
    for (auto& [name, line] : section_.text_pairs(key)) {
      found.emplace_back(step(key, name), std::move(line));
    }
    return found;
  }

  RecoveryStep step(std::string_view key, const std::string& name) {
    const auto found = recovery_step(name);
    if (found) return *found;
    std::string known;
    for (const StepName& each : names)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", each.name);
    section_.refuse(fmt::format("[recover.{}]: there is no step \"{}\"", key, name),
                    "the steps are " + known);
  }

  std::optional<service::ComposeService> compose() {
    const toml::table* table = section_.table("compose");
    if (table == nullptr) return std::nullopt;
    Section compose(file_, *table, "recover.compose");
    service::ComposeService found;
    const path here = file_.path.parent_path();
    for (const std::string& each : compose.texts("files")) {
      found.files.push_back((here / each).lexically_normal());
    }
    for (const std::string& each : compose.texts("env_files")) {
      found.environment_files.push_back((here / each).lexically_normal());
    }
    found.project = compose.text("project");
    found.service = compose.required("service");
    compose.refuse_other_keys();
    return found;
  }

  /// What is named in part is a mistake: it would be left out in a bad night.
  static void all_or_none(const Section& section, std::string_view what,
                          std::initializer_list<std::string_view> values) {
    const auto set = std::ranges::count_if(values, [](std::string_view v) { return !v.empty(); });
    if (set != 0 && static_cast<std::size_t>(set) != values.size()) {
      section.refuse(fmt::format("[recover.cloudflare]: {} belong together", what));
    }
  }

  std::optional<EdgeSettings> edge() {
    const toml::table* table = section_.table("cloudflare");
    if (table == nullptr) return std::nullopt;
    Section edge(file_, *table, "recover.cloudflare");
    EdgeSettings found;
    found.api = edge.text("api");
    if (const std::string file = edge.text("token_file"); !file.empty()) {
      found.token_file = (file_.path.parent_path() / file).lexically_normal();
    }
    found.account = edge.text("account");
    found.tunnel = edge.text("tunnel");
    found.connector = edge.text("connector");
    found.hostname = edge.text("hostname");
    found.service = edge.text("service");
    found.zone = edge.text("zone");
    found.record = edge.text("record");
    if (const std::string type = edge.text("type"); !type.empty()) found.type = type;
    found.content = edge.text("content");
    found.pool = edge.text("pool");
    found.origin = edge.text("origin");
    found.address = edge.text("address");
    edge.refuse_other_keys();
    all_or_none(edge, "\"hostname\" and \"service\"", {found.hostname, found.service});
    all_or_none(edge, "\"zone\", \"record\" and \"content\"",
                {found.zone, found.record, found.content});
    all_or_none(edge, "\"pool\", \"origin\" and \"address\"",
                {found.pool, found.origin, found.address});
    const bool tunnel = !found.connector.empty() || !found.hostname.empty();
    if (tunnel && (found.tunnel.empty() || found.account.empty())) {
      edge.refuse("\"connector\" and \"hostname\" need \"account\" and \"tunnel\"");
    }
    if (!found.pool.empty() && found.account.empty()) {
      edge.refuse("\"pool\" needs \"account\"");
    }
    if (!tunnel && found.zone.empty() && found.pool.empty()) {
      edge.refuse("it names neither \"connector\", \"hostname\", \"zone\" nor \"pool\"");
    }
    return found;
  }

 private:
  const TomlFile& file_;
  Section& section_;
};

}  // namespace

std::string_view name_of(RecoveryStep step) {
  return entry(step).name;
}

std::optional<RecoveryStep> recovery_step(std::string_view name) {
  const auto found = std::ranges::find(names, name, &StepName::name);
  if (found == names.end()) return std::nullopt;
  return static_cast<RecoveryStep>(found - names.begin());
}

std::optional<std::string> RecoverSettings::command(RecoveryStep step) const {
  return find(commands, step);
}
std::optional<std::string> RecoverSettings::undo_command(RecoveryStep step) const {
  return find(undo, step);
}
base::Microseconds RecoverSettings::limit(RecoveryStep step) const {
  return find(limits, step).value_or(entry(step).limit);
}

RecoverSettings read_recover(const TomlFile& file, const toml::table* table) {
  const toml::table none;
  Section section(file, table == nullptr ? none : *table, "recover");
  Reader reader(file, section);
  RecoverSettings settings;
  settings.state = reader.place("state", "recoveries");
  settings.directory = reader.place("directory");
  settings.connection = section.text("connection");
  settings.instant = section.flag("instant").value_or(false);
  settings.database_host = section.text("database_host");
  if (const auto port = section.count("database_port")) {
    if (*port > 65535) section.refuse("\"database_port\" is no port");
    settings.database_port = static_cast<std::uint16_t>(*port);
    if (settings.database_host.empty()) {
      section.refuse("\"database_port\" needs \"database_host\"");
    }
  }
  settings.environment_file = reader.place("environment_file");
  if (const std::string variable = section.text("variable"); !variable.empty()) {
    settings.variable = variable;
  }
  settings.compose = reader.compose();
  settings.edge = reader.edge();
  settings.unit = section.text("unit");
  settings.ready = section.text("ready");
  settings.proof = section.text("proof");
  settings.smoke = reader.place("smoke");
  settings.commands = reader.lines("command");
  settings.undo = reader.lines("undo");
  for (const auto& [name, text] : section.text_pairs("limit")) {
    const RecoveryStep step = reader.step("limit", name);
    Section limit(file, *section.table("limit"), "recover.limit");
    settings.limits.emplace_back(step, *limit.duration(name));
  }
  section.refuse_other_keys();
  const int deployers = (settings.compose ? 1 : 0) + (settings.unit.empty() ? 0 : 1) +
                        (settings.command(RecoveryStep::deploy) ? 1 : 0);
  if (deployers > 1) {
    section.refuse("\"compose\", \"unit\" and [recover.command] deploy exclude each other");
  }
  if (!settings.database_host.empty() && settings.environment_file.empty() &&
      !settings.command(RecoveryStep::environment)) {
    section.refuse("\"database_host\" needs the \"environment_file\" in which it is to be used");
  }
  return settings;
}

}  // namespace holdfast::operations
