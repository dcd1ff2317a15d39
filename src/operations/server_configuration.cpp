#include "operations/server_configuration.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/file.h"
#include "postgres/configuration_file.h"

namespace holdfast::operations {

namespace {

using base::Error;
using postgres::Include;
using Kind = ServerConfiguration::Kind;

/// The server's own limit.
constexpr int deepest = 10;
constexpr std::array<std::string_view, 7> file_settings = {
    "ssl_cert_file", "ssl_key_file",       "ssl_ca_file",       "ssl_crl_file",
    "ssl_crl_dir",   "ssl_dh_params_file", "krb_server_keyfile"};

std::string directory_of(const std::string& file) {
  return base::fs::path(file).parent_path().string();
}

class Reading {
 public:
  Reading(ConfigurationSource& source, ConfigurationRoots& roots)
      : source_(source), roots_(roots) {}

  ServerConfiguration run() {
    const std::string& data = roots_.data_directory;
    if (roots_.config_file.empty()) roots_.config_file = data + "/postgresql.conf";
    read(roots_.config_file, "the server", Kind::settings, Include::file, 0);
    read(data + "/postgresql.auto.conf", "the server", Kind::settings, Include::file_if_exists, 0);
    find_access_file(roots_.hba_file, "hba_file", "/pg_hba.conf", Include::file);
    find_access_file(roots_.ident_file, "ident_file", "/pg_ident.conf", Include::file_if_exists);
    for (const std::string_view name : file_settings) read_named(std::string(name));
    return std::move(found_);
  }

 private:
  void find_access_file(std::string& root, const std::string& setting, const char* usual,
                        Include how) {
    if (root.empty()) {
      root =
          resolved(roots_.data_directory, found_.setting(setting, roots_.data_directory + usual));
    }
    read(root, "the server", Kind::access, how, 0);
  }

  void lack(const std::string& path, const std::string& named_by, std::string why) {
    const auto same = [&](const auto& each) { return each.path == path; };
    if (std::ranges::any_of(found_.lacks, same)) return;
    found_.lacks.push_back({path, named_by, std::move(why)});
  }

  std::optional<base::Bytes> content_of(const std::string& path, const std::string& named_by,
                                        bool required) {
    try {
      auto content = source_.read(path);
      if (!content && required) lack(path, named_by, "it is not there");
      return content;
    } catch (const Error& error) {
      if (error.code() == base::Code::unreachable) throw;
      lack(path, named_by, error.message());
      return std::nullopt;
    }
  }

  void read(const std::string& path, const std::string& named_by, Kind kind, Include how,
            int depth) {
    if (depth > deepest) return;
    if (how == Include::directory) return read_directory(path, named_by, kind, depth);
    const auto content = content_of(path, named_by, how == Include::file);
    if (!content) return;
    if (found_.file(path) == nullptr) found_.files.push_back({path, kind, base::copy(*content)});
    if (kind == Kind::settings) return read_settings(path, base::text(*content), depth);
    for (const postgres::AccessReference& each :
         postgres::access_references(base::text(*content))) {
      if (kind == Kind::list && !each.list) continue;
      read(resolved(directory_of(path), each.path), path, each.list ? Kind::list : Kind::access,
           each.kind, depth + 1);
    }
  }

  void read_settings(const std::string& path, std::string_view text, int depth) {
    for (postgres::ConfigurationLine& line : postgres::configuration_lines(text)) {
      if (!line.value) continue;
      const auto include = postgres::include_directive(line.name);
      if (!include) {
        found_.settings[line.name] = *std::move(line.value);
      } else if (!line.value->empty()) {
        read(resolved(directory_of(path), *line.value), path, Kind::settings, *include, depth + 1);
      }
    }
  }

  std::vector<std::string> names_in(const std::string& directory, const std::string& named_by) {
    try {
      auto names = source_.names(directory);
      if (!names) lack(directory, named_by, "it is not there");
      return names.value_or(std::vector<std::string>{});
    } catch (const Error& error) {
      if (error.code() == base::Code::unreachable) throw;
      lack(directory, named_by, error.message());
      return {};
    }
  }

  void add_directory(const std::string& directory) {
    if (std::ranges::find(found_.directories, directory) == found_.directories.end()) {
      found_.directories.push_back(directory);
    }
  }

  void read_directory(const std::string& directory, const std::string& named_by, Kind kind,
                      int depth) {
    add_directory(directory);
    for (const std::string& name : names_in(directory, named_by)) {
      if (!postgres::is_included_name(name)) continue;
      read(resolved(directory, name), directory, kind, Include::file_if_exists, depth + 1);
    }
  }

  /// What a setting names. Without ssl = on nobody needs the files of ssl.
  void read_named(const std::string& setting) {
    const std::string value = found_.setting(setting);
    const auto named = file_in_setting(value);
    if (!named) return;
    const bool needed =
        !setting.starts_with("ssl_") || postgres::is_true(found_.setting("ssl", "off"));
    const std::string path = resolved(roots_.data_directory, *named);
    const auto lacks_before = found_.lacks.size();
    if (setting == "ssl_crl_dir") {
      add_directory(path);
      for (const std::string& name : names_in(path, setting)) {
        add_secret(resolved(path, name), setting, false);
      }
    } else {
      add_secret(path, setting, true);
    }
    if (!needed) found_.lacks.resize(lacks_before);
  }

  void add_secret(const std::string& path, const std::string& setting, bool required) {
    auto content = content_of(path, setting, required);
    if (!content || found_.file(path) != nullptr) return;
    found_.files.push_back({path, Kind::secret, *std::move(content)});
  }

  ConfigurationSource& source_;
  ConfigurationRoots& roots_;
  ServerConfiguration found_;
};

}  // namespace

std::optional<base::Bytes> ConfigurationOnDisk::read(const std::string& path) {
  constexpr std::int64_t largest = 16 << 20;
  const auto status = base::status_of(path);
  if (!status) return std::nullopt;
  // What is no file is not opened: a FIFO would keep us for ever.
  if (!S_ISREG(status->st_mode)) base::fail(base::Code::io, "\"{}\" is not a file", path);
  if (status->st_size > largest) {
    base::fail(base::Code::io, "\"{}\" is too large for configuration", path);
  }
  return base::read_file(path);
}

std::optional<std::vector<std::string>> ConfigurationOnDisk::names(const std::string& directory) {
  auto names = base::directory_names(directory);
  if (!names) return names;
  std::erase_if(*names, [&](const std::string& name) {
    const auto status = base::status_of(base::fs::path(directory) / name);
    return !status || S_ISDIR(status->st_mode);
  });
  return names;
}

const ServerConfiguration::File* ServerConfiguration::file(const std::string& path) const {
  const auto found = std::ranges::find(files, path, &File::path);
  return found == files.end() ? nullptr : &*found;
}

std::string ServerConfiguration::setting(const std::string& name,
                                         const std::string& otherwise) const {
  const auto found = settings.find(name);
  return found == settings.end() ? otherwise : found->second;
}

bool names_a_file(const std::string& setting) {
  return std::ranges::find(file_settings, setting) != file_settings.end();
}

std::optional<std::string> file_in_setting(const std::string& value) {
  const std::string_view path =
      std::string_view(value).substr(value.starts_with("FILE:") ? std::size_t{5} : 0);
  // Another kind of key table ("MEMORY:name") is no file.
  if (path.empty() || path.find(':') < path.find('/')) return std::nullopt;
  return std::string(path);
}

std::string resolved(const std::string& directory, const std::string& path) {
  std::string normal = (base::fs::path(directory) / path).lexically_normal().string();
  while (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  return normal;
}

bool is_below(const std::string& directory, const std::string& path) {
  return !directory.empty() && path.size() > directory.size() + 1 && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

ServerConfiguration read_server_configuration(ConfigurationSource& source,
                                              ConfigurationRoots& roots) {
  return Reading(source, roots).run();
}

}  // namespace holdfast::operations
