#include "operations/source_configuration.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "operations/server_configuration.h"
#include "postgres/administration.h"
#include "postgres/recovery_settings.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

class ThroughServer : public ConfigurationSource {
 public:
  explicit ThroughServer(postgres::Session& session) : session_(session) {}

  std::optional<base::Bytes> read(const std::string& path) override {
    try {
      return postgres::read_server_file(session_, path);
    } catch (const Error& error) {
      if (error.code() != Code::postgres) throw;
      const base::fs::path name(path);
      const auto beside = names(name.parent_path().string());
      if (beside && std::ranges::find(*beside, name.filename().string()) != beside->end()) throw;
      return std::nullopt;
    }
  }
  std::optional<std::vector<std::string>> names(const std::string& directory) override {
    return postgres::server_directory_names(session_, directory);
  }

 private:
  postgres::Session& session_;
};

std::optional<std::string> visible_setting(postgres::Session& session, const char* name) {
  try {
    return session.setting(name);
  } catch (const Error& error) {
    if (error.code() != Code::permission) throw;
    return std::nullopt;
  }
}

repository::Attachment attachment(std::string name, std::string_view text) {
  return {std::move(name), base::copy(base::view(text))};
}

/// What is said of the place of the running server is not worth taking along.
bool belongs_to_the_place(const std::string& name) {
  static const std::set<std::string> names = {"config_file",
                                              "data_directory",
                                              "hba_file",
                                              "ident_file",
                                              "external_pid_file",
                                              "listen_addresses",
                                              "port",
                                              "unix_socket_directories",
                                              "log_directory",
                                              "unix_socket_permissions",
                                              "logging_collector"};
  return names.contains(name);
}

/// Settings on the command line, as lines of a configuration file.
std::string command_line(postgres::Session& session) {
  std::string text;
  for (const postgres::Row& row : postgres::settings_on_command_line(session)) {
    const std::string name = row.at(0).value_or("");
    if (belongs_to_the_place(name)) continue;
    text += name + " = " + postgres::quote_setting(row.at(1).value_or("")) + "\n";
  }
  return text;
}

std::string named_in(std::string_view lines) {
  std::string names;
  while (!lines.empty()) {
    if (!names.empty()) names += ", ";
    names += lines.substr(0, lines.find(' '));
    lines.remove_prefix(std::min(lines.find('\n') + 1, lines.size()));
  }
  return names;
}

}  // namespace

SourceConfiguration read_source_configuration(const ClusterConfiguration& cluster,
                                              postgres::Session& session) {
  const bool agentless = cluster.data_directory.empty();
  const std::string own = cluster.data_directory.string();
  ConfigurationRoots roots;
  const auto visible = visible_setting(session, "data_directory");
  roots.data_directory = visible.value_or(own);
  SourceConfiguration result;
  if (!visible) {
    result.lacks.push_back(
        "could not see where the server keeps its configuration; what is outside of its data "
        "directory is not in the backup: GRANT pg_read_all_settings");
    if (agentless) return result;
  }
  roots.config_file = visible_setting(session, "config_file").value_or("");
  roots.hba_file = visible_setting(session, "hba_file").value_or("");
  roots.ident_file = visible_setting(session, "ident_file").value_or("");
  ConfigurationOnDisk disk;
  ThroughServer server(session);
  const ServerConfiguration found = read_server_configuration(
      agentless ? static_cast<ConfigurationSource&>(server) : disk, roots);
  for (const ServerConfiguration::File& file : found.files) {
    const bool inside = is_below(roots.data_directory, file.path);
    // The server does not send what is a link in its data directory, so all is taken there.
    const bool taken = inside && (!agentless || file.path.ends_with("/postgresql.auto.conf"));
    if (!taken) result.attachments.push_back({"config" + file.path, base::copy(file.content)});
  }
  for (const auto& [name, path] :
       {std::pair{"config_file", &roots.config_file}, std::pair{"hba_file", &roots.hba_file},
        std::pair{"ident_file", &roots.ident_file},
        std::pair{"data_directory", &roots.data_directory}}) {
    result.attachments.push_back(attachment(name, *path));
  }
  std::string all_lacks;
  for (const ServerConfiguration::Lack& lack : found.lacks) {
    // What is inside comes along all the same, only what it names is not known.
    const bool inside = agentless && is_below(roots.data_directory, lack.path);
    if (!inside) all_lacks += lack.path + "\n";
    result.lacks.push_back(
        fmt::format("{} \"{}\", which {} names: {}{}",
                    inside ? "could not look for outside files in" : "the backup lacks", lack.path,
                    lack.named_by, lack.why,
                    agentless ? ". GRANT pg_read_server_files, and EXECUTE ON FUNCTION "
                                "pg_read_binary_file(text), pg_ls_dir(text), or keep a copy of it"
                              : ""));
  }
  if (!all_lacks.empty()) {
    result.attachments.push_back(attachment("configuration_lacks", all_lacks));
  }
  if (const std::string lines = command_line(session); !lines.empty()) {
    result.attachments.push_back(attachment("command_line", lines));
    result.command_line = fmt::format(
        "set on the server's command line, not in its files, so a restored server lacks it: {}",
        named_in(lines));
  }
  return result;
}

}  // namespace holdfast::operations
