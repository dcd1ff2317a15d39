#pragma once

// A server's configuration as its files have it: which files belong to it, what they say, and what
// could not be read. The same reading serves a backup (from the disk, or through the server) and a
// restore (from the backup), so that what the one takes along is what the other looks for.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace holdfast::operations {

/// Where the files are read from. Paths are absolute, as the server has them.
class ConfigurationSource {
 public:
  virtual ~ConfigurationSource() = default;
  /// nullopt if it is not there; Error if it cannot be read.
  virtual std::optional<base::Bytes> read(const std::string& path) = 0;
  /// The names of a directory's files, sorted; likewise.
  virtual std::optional<std::vector<std::string>> names(const std::string& directory) = 0;
};

class ConfigurationOnDisk : public ConfigurationSource {
 public:
  std::optional<base::Bytes> read(const std::string& path) override;
  std::optional<std::vector<std::string>> names(const std::string& directory) override;
};

/// Where reading begins. Empty: as the server itself finds it.
struct ConfigurationRoots {
  std::string data_directory;
  std::string config_file;  ///< by default DATA/postgresql.conf
  std::string hba_file;     ///< by default what the settings say, or DATA/pg_hba.conf
  std::string ident_file;
};

struct ServerConfiguration {
  enum class Kind { settings, access, list, secret };
  struct File {
    std::string path;
    Kind kind = Kind::settings;
    base::Bytes content;
  };
  struct Lack {
    std::string path;
    std::string named_by;
    std::string why;
  };
  std::vector<File> files;               ///< each once, in the order in which they are read
  std::vector<std::string> directories;  ///< that are included, or hold files that a setting names
  /// What counts: by name in lower case, the last one that sets it.
  std::map<std::string, std::string> settings;
  std::vector<Lack> lacks;

  const File* file(const std::string& path) const;
  std::string setting(const std::string& name, const std::string& otherwise = {}) const;
};

/// Reads postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf, all that these include,
/// and the files that settings name (certificates, keys).
ServerConfiguration read_server_configuration(ConfigurationSource& source,
                                              ConfigurationRoots& roots);

/// Settings that name a file which the server opens; relative to the data directory.
bool names_a_file(const std::string& setting);
/// The path in such a setting: "FILE:/etc/krb5.keytab" is /etc/krb5.keytab. nullopt: none.
std::optional<std::string> file_in_setting(const std::string& value);
/// `path`, relative to `directory` unless it is absolute, without "." and "..".
std::string resolved(const std::string& directory, const std::string& path);
bool is_below(const std::string& directory, const std::string& path);

}  // namespace holdfast::operations
