#include "operations/restored_configuration.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/beneath.h"
#include "base/error.h"
#include "operations/restore_files.h"
#include "operations/server_configuration.h"
#include "postgres/configuration_file.h"
#include "postgres/recovery_settings.h"

namespace holdfast::operations {

namespace {

using Kind = ServerConfiguration::Kind;
using postgres::Include;

constexpr std::string_view own_files[] = {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"};
constexpr const char* automatic = "postgresql.auto.conf";
/// Settings that lead to the source, or to where it runs; what they are by default is right.
constexpr std::array<std::string_view, 6> dropped = {"data_directory",    "hba_file",
                                                     "ident_file",        "config_file",
                                                     "external_pid_file", "stats_temp_directory"};
/// Where a backup does not say where its source was (it is an old one).
constexpr const char* unknown_place = "/holdfast.unknown";

std::string text_of(const repository::BackupMap& map, std::string_view name) {
  const repository::Attachment* found = map.attachment(name);
  return found == nullptr ? std::string() : std::string(base::text(found->content));
}

std::string parent_of(const std::string& path) {
  return base::fs::path(path).parent_path().string();
}

/// `to` as seen from the file `from`; both below one directory.
std::string relative_to(const std::string& from, const std::string& to) {
  return base::fs::path("/" + to).lexically_relative("/" + parent_of(from)).string();
}

/// The source's paths, as far as they are in the backup.
class InBackup : public ConfigurationSource {
 public:
  InBackup(const repository::BackupMap& map, const base::Beneath& directory, std::string source)
      : map_(map), directory_(directory), source_(std::move(source)) {}

  std::optional<base::Bytes> read(const std::string& path) override {
    if (is_below(source_, path)) {
      const std::string name = path.substr(source_.size() + 1);
      const auto status = directory_.status_of(name);
      if (status && S_ISREG(status->st_mode)) return directory_.read_file(name);
    }
    const repository::Attachment* attached = map_.attachment("config" + path);
    if (attached == nullptr) return std::nullopt;
    return base::copy(attached->content);
  }

  std::optional<std::vector<std::string>> names(const std::string& path) override {
    std::set<std::string> names;
    bool there = false;
    if (is_below(source_, path)) {
      const std::string name = path.substr(source_.size() + 1);
      const auto status = directory_.status_of(name);
      there = status && S_ISDIR(status->st_mode);
      if (there) {
        for (std::string& each : directory_.names(name)) names.insert(std::move(each));
      }
    }
    const std::string prefix = "config" + path + "/";
    for (const repository::Attachment& each : map_.attachments) {
      if (!each.name.starts_with(prefix)) continue;
      const std::string name = each.name.substr(prefix.size());
      if (name.find('/') == std::string::npos) names.insert(name);
    }
    // An empty directory outside leaves no trace in a backup.
    if (!there && names.empty() && is_below(source_, path)) return std::nullopt;
    return std::vector<std::string>(names.begin(), names.end());
  }

 private:
  const repository::BackupMap& map_;
  const base::Beneath& directory_;
  std::string source_;
};

class Placing {
 public:
  Placing(const repository::BackupMap& map, const base::fs::path& directory, std::string owner)
      : map_(map),
        directory_(base::Beneath::make(directory)),
        owner_(std::move(owner)),
        roots_{text_of(map, "data_directory"), text_of(map, "config_file"),
               text_of(map, "hba_file"), text_of(map, "ident_file")} {
    if (roots_.data_directory.empty()) roots_.data_directory = unknown_place;
  }

  RestoredConfiguration run() {
    InBackup source(map_, directory_, roots_.data_directory);
    found_ = read_server_configuration(source, roots_);
    choose_place_of_copies();
    put_aside();
    for (const std::string& each : found_.directories) make_directory(target(each));
    for (const ServerConfiguration::File& file : found_.files) place(file);
    complete();
    say_what_is_lacking();
    result_.settings = std::move(found_.settings);
    return std::move(result_);
  }

 private:
  bool is_inside(const std::string& path) const { return is_below(roots_.data_directory, path); }

  /// In the data directory of the source; empty: it was outside.
  std::string inside(const std::string& path) const {
    return is_inside(path) ? path.substr(roots_.data_directory.size() + 1) : std::string();
  }

  std::string root(std::size_t index) const {
    return index == 0 ? roots_.config_file : index == 1 ? roots_.hba_file : roots_.ident_file;
  }

  /// Where a path of the source is in the restored directory.
  std::string target(const std::string& path) const {
    for (std::size_t i = 0; i < std::size(own_files); ++i) {
      if (path == root(i)) return std::string(own_files[i]);
    }
    if (!is_inside(path)) return copies_ + path;
    const std::string name = inside(path);
    return std::ranges::find(own_files, name) == std::end(own_files) ? name : name + ".unused";
  }

  void choose_place_of_copies();
  void put_aside();
  void place(const ServerConfiguration::File& file);
  std::string settings_text(const ServerConfiguration::File& file);
  std::string restored_line(const postgres::ConfigurationLine& line, const std::string& file);
  std::optional<std::string> restored_value(const postgres::ConfigurationLine& line,
                                            const std::string& file) const;
  std::string access_text(const ServerConfiguration::File& file) const;
  void make_directory(const std::string& path);
  void write(const std::string& path, std::string_view text, mode_t mode);
  void complete();
  void say_what_is_lacking();
  bool is_lacking(const std::string& path) const {
    return std::ranges::find(found_.lacks, path, &ServerConfiguration::Lack::path) !=
           found_.lacks.end();
  }

  const repository::BackupMap& map_;
  base::Beneath directory_;
  std::string owner_;
  ConfigurationRoots roots_;
  ServerConfiguration found_;
  std::string copies_;
  RestoredConfiguration result_;
};

/// Copies of an earlier restore go, unless the source itself uses them.
void Placing::choose_place_of_copies() {
  const auto is_used = [&](const std::string& name) {
    const auto is_in = [&](const std::string& path) {
      return inside(path).starts_with(name + "/");
    };
    return std::ranges::any_of(found_.files, is_in, &ServerConfiguration::File::path) ||
           std::ranges::any_of(found_.directories, is_in);
  };
  bool any_outside = !std::ranges::all_of(found_.directories,
                                          [&](const std::string& path) { return is_inside(path); });
  for (const ServerConfiguration::File& file : found_.files) {
    any_outside = any_outside || !is_inside(file.path);
  }
  for (int number = 1;; ++number) {
    const std::string name =
        number == 1 ? "holdfast.config" : fmt::format("holdfast.config.{}", number);
    const bool used = is_used(name);
    if (copies_.empty() && !used) copies_ = name;
    if (!directory_.status_of(name) && !copies_.empty()) return;
    if (any_outside && !used) directory_.remove_all(name);
  }
}

/// Files of the usual names that the source did not use: it had others.
void Placing::put_aside() {
  for (std::size_t i = 0; i < std::size(own_files); ++i) {
    const std::string name(own_files[i]);
    if (root(i) == roots_.data_directory + "/" + name) continue;
    if (found_.file(root(i)) == nullptr) continue;  // better this one than none
    if (directory_.status_of(name)) directory_.rename(name, name + ".unused");
  }
}

void Placing::place(const ServerConfiguration::File& file) {
  std::string text(base::text(file.content));
  if (file.kind == Kind::settings) text = settings_text(file);
  if (file.kind == Kind::access || file.kind == Kind::list) text = access_text(file);
  const std::string name = target(file.path);
  const auto there = directory_.status_of(name);
  const bool is_same = there && S_ISREG(there->st_mode) && name == inside(file.path) &&
                       text == base::text(file.content);
  const mode_t mode = there && file.kind != Kind::secret ? there->st_mode & 0777 : 0600;
  // A key must be its owner's alone, or the server refuses it.
  if (is_same && (file.kind != Kind::secret || (there->st_mode & 0777) == 0600)) return;
  make_directory(parent_of(name));
  write(name, text, mode);
}

std::string Placing::settings_text(const ServerConfiguration::File& file) {
  std::string text;
  for (const postgres::ConfigurationLine& line :
       postgres::configuration_lines(base::text(file.content))) {
    text += restored_line(line, file.path);
  }
  return text;
}

std::string Placing::restored_line(const postgres::ConfigurationLine& line,
                                   const std::string& file) {
  const auto out = [&] { return "# holdfast restore: " + std::string(line.text); };
  if (std::ranges::find(dropped, line.name) != dropped.end()) return out();
  if (!line.value) return std::string(line.text);
  const auto include = postgres::include_directive(line.name);
  if (include == Include::file && is_lacking(resolved(parent_of(file), *line.value))) return out();
  const auto value = restored_value(line, file);
  if (!value || *value == *line.value) return std::string(line.text);
  return out() + (line.text.ends_with('\n') ? "" : "\n") +
         fmt::format("{} = {}\n", line.name, postgres::quote_setting(*value));
}

/// nullopt: as it was.
std::optional<std::string> Placing::restored_value(const postgres::ConfigurationLine& line,
                                                   const std::string& file) const {
  const std::string& value = *line.value;
  if (postgres::include_directive(line.name)) {
    if (value.empty()) return std::nullopt;
    return relative_to(target(file), target(resolved(parent_of(file), value)));
  }
  if (line.name == "log_directory") {
    const std::string path = resolved(roots_.data_directory, value);
    if (path == roots_.data_directory) return ".";
    return is_inside(path) ? inside(path) : "log";
  }
  if (!names_a_file(line.name)) return std::nullopt;
  const auto named = file_in_setting(value);
  if (!named) return std::nullopt;
  return value.substr(0, value.size() - named->size()) +
         target(resolved(roots_.data_directory, *named));
}

std::string Placing::access_text(const ServerConfiguration::File& file) const {
  const std::string_view before = base::text(file.content);
  std::string text;
  std::size_t at = 0;
  for (const postgres::AccessReference& each : postgres::access_references(before)) {
    if (file.kind == Kind::list && !each.list) continue;
    const std::string path =
        relative_to(target(file.path), target(resolved(parent_of(file.path), each.path)));
    text += before.substr(at, each.begin - at);
    text += path == each.path ? std::string(before.substr(each.begin, each.end - each.begin))
                              : postgres::to_string(each, path);
    at = each.end;
  }
  return text + std::string(before.substr(at));
}

void Placing::make_directory(const std::string& path) {
  if (path.empty() || directory_.status_of(path)) return;
  make_directory(parent_of(path));
  directory_.make_directory(path, 0700);
  give_to(directory_.full(path), owner_);
}

void Placing::write(const std::string& path, std::string_view text, mode_t mode) {
  directory_.replace_file(path, base::view(text), mode);
  give_to(directory_.full(path), owner_);
}

/// A server starts, and lets its own user in, even if nothing of its configuration could be read.
void Placing::complete() {
  const std::string why = "# Written by holdfast restore: the backup lacks {}\n";
  if (!directory_.status_of("postgresql.conf")) {
    write("postgresql.conf", fmt::format(fmt::runtime(why), roots_.config_file), 0600);
    result_.notes.push_back(
        fmt::format("the backup does not have \"{}\": the restored server has the settings of "
                    "postgresql.auto.conf only",
                    roots_.config_file));
  }
  if (!directory_.status_of("pg_hba.conf")) {
    write("pg_hba.conf", fmt::format(fmt::runtime(why), roots_.hba_file) + "local all all peer\n",
          0600);
    result_.notes.push_back(fmt::format(
        "the backup does not have \"{}\": the restored server lets in local users as themselves, "
        "and nobody else",
        roots_.hba_file));
  }
}

void Placing::say_what_is_lacking() {
  std::string files_of_ssl;
  for (const ServerConfiguration::Lack& lack : found_.lacks) {
    if (lack.path == roots_.config_file || lack.path == roots_.hba_file) continue;
    if (lack.named_by.starts_with("ssl_")) {
      files_of_ssl += (files_of_ssl.empty() ? "\"" : ", \"") + lack.path + "\"";
      continue;
    }
    result_.notes.push_back(fmt::format(
        "the backup does not have \"{}\", which {} names{}", lack.path, lack.named_by,
        lack.named_by == "krb_server_keyfile" ? "" : ": the restored server goes without it"));
  }
  std::string_view lacking_there;
  const std::string all = text_of(map_, "configuration_lacks");
  for (lacking_there = all; !lacking_there.empty();) {
    const std::string path(lacking_there.substr(0, lacking_there.find('\n')));
    lacking_there.remove_prefix(std::min(path.size() + 1, lacking_there.size()));
    if (is_lacking(path) || path == roots_.config_file || path == roots_.hba_file) continue;
    result_.notes.push_back(fmt::format("what was in \"{}\" is not in the backup", path));
  }
  const std::string command_line = text_of(map_, "command_line");
  if (!command_line.empty()) {
    std::string line = command_line;
    line.pop_back();
    std::ranges::replace(line, '\n', ';');
    result_.notes.push_back(
        "the source had settings on its command line, which the restored server lacks: " + line);
  }
  if (files_of_ssl.empty()) return;
  // Nobody is let in unencrypted who was not: lines that say hostssl match no connection now.
  const auto before = directory_.read_file(automatic);
  write(automatic,
        postgres::edit_settings(before ? base::text(*before) : "", {}, {{"ssl", "off"}},
                                "Written by holdfast restore: files of ssl are not in the backup"),
        0600);
  found_.settings["ssl"] = "off";
  result_.notes.push_back(fmt::format(
      "the restored server needs {}, which the backup does not have: it starts with ssl = off. "
      "Name them and ALTER SYSTEM RESET ssl",
      files_of_ssl));
}

}  // namespace

RestoredConfiguration place_configuration(const repository::BackupMap& map,
                                          const base::fs::path& directory,
                                          const std::string& owner) {
  return Placing(map, directory, owner).run();
}

}  // namespace holdfast::operations
