#include "postgres/data_directory.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <set>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

using base::fs::path;

constexpr std::string_view tablespace_directory = "pg_tblspc";

/// Directories whose contents no backup needs (excludeDirContents in basebackup.c); pg_wal as well,
/// but it has subdirectories that a server expects.
constexpr std::array<std::string_view, 7> emptied_directories = {
    "pg_dynshmem",  "pg_notify",   "pg_replslot", "pg_serial",
    "pg_snapshots", "pg_stat_tmp", "pg_subtrans"};
constexpr std::array<std::string_view, 2> wal_directories = {"archive_status", "summaries"};

/// Files that are left out where the server keeps them, at the top of the data directory. Further
/// down they are somebody else's.
constexpr std::array<std::string_view, 14> top_files_left_out = {"postgresql.auto.conf.tmp",
                                                                 "current_logfiles.tmp",
                                                                 "backup_label",
                                                                 "backup_label.old",
                                                                 "tablespace_map",
                                                                 "tablespace_map.old",
                                                                 "backup_manifest",
                                                                 "backup_manifest.tmp",
                                                                 "postmaster.pid",
                                                                 "postmaster.opts",
                                                                 "recovery.signal",
                                                                 "standby.signal",
                                                                 "recovery.conf",
                                                                 "recovery.done"};

template <std::size_t size>
bool contains(const std::array<std::string_view, size>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A number as PostgreSQL writes it into a file name: no sign, no leading zero, 32 bits.
std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  if (text.empty() || text.front() < '1' || text.front() > '9') return std::nullopt;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Cuts `text` at the first `separator`; the part before it is returned and taken off.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

/// The directory that holds relations of one database (or those that all share), and the name of a
/// file in it.
struct InRelationDirectory {
  std::uint32_t tablespace = 0;
  std::uint32_t database = 0;
  std::string_view name;
};
std::optional<InRelationDirectory> in_relation_directory(std::string_view rest) {
  // pg_default and pg_global (catalog/pg_tablespace.dat)
  constexpr std::uint32_t default_tablespace = 1663;
  constexpr std::uint32_t global_tablespace = 1664;
  InRelationDirectory found;
  const std::string_view top = take_until(rest, '/');
  if (top == "global") {
    found.tablespace = global_tablespace;
  } else {
    found.tablespace = default_tablespace;
    if (top == tablespace_directory) {
      const auto tablespace = number(take_until(rest, '/'));
      if (!tablespace || !take_until(rest, '/').starts_with("PG_")) return std::nullopt;
      found.tablespace = *tablespace;
    } else if (top != "base") {
      return std::nullopt;
    }
    const auto database = number(take_until(rest, '/'));
    if (!database) return std::nullopt;
    found.database = *database;
  }
  if (rest.find('/') != std::string_view::npos) return std::nullopt;
  found.name = rest;
  return found;
}

std::optional<RelationFile::Fork> fork_named(std::string_view name) {
  if (name == "fsm") return RelationFile::Fork::free_space_map;
  if (name == "vm") return RelationFile::Fork::visibility_map;
  if (name == "init") return RelationFile::Fork::init;
  return std::nullopt;
}

/// What statx knows of a file, links followed.
struct Status {
  DirectoryEntry entry;
  std::pair<std::uint64_t, std::uint64_t> identity;  ///< device and inode
  bool is_directory = false;
  bool is_regular = false;
};

/// nullopt if it is gone, or a link that leads nowhere.
std::optional<Status> status_of(const path& file, std::string relative) {
  struct statx found {};
  if (::statx(AT_FDCWD, file.c_str(), AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS | STATX_BTIME,
              &found) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    base::fail_errno(fmt::format("stat \"{}\"", file.string()), errno);
  }
  Status status;
  status.is_directory = S_ISDIR(found.stx_mode);
  status.is_regular = S_ISREG(found.stx_mode);
  status.identity = {makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino};
  DirectoryEntry& entry = status.entry;
  entry.kind = status.is_directory ? DirectoryEntry::Kind::directory : DirectoryEntry::Kind::file;
  entry.path = std::move(relative);
  entry.size = status.is_directory ? 0 : found.stx_size;
  entry.mode = found.stx_mode & 07777U;
  entry.uid = found.stx_uid;
  entry.gid = found.stx_gid;
  entry.inode = found.stx_ino;
  if ((found.stx_mask & STATX_BTIME) != 0) {
    entry.birth = found.stx_btime.tv_sec * 1'000'000'000 + found.stx_btime.tv_nsec;
  }
  return status;
}

bool is_link(const path& file) {
  const auto status = base::status_of(file, false);
  return status && S_ISLNK(status->st_mode);
}

class Walk {
 public:
  Walk(path root, std::string_view version_directory,
       const std::function<void(const DirectoryEntry&)>& visit)
      : root_(std::move(root)), version_directory_(version_directory), visit_(visit) {
    for (const Tablespace& tablespace : linked_tablespaces(root_)) {
      const path link = root_ / tablespace_directory / std::to_string(tablespace.oid);
      for (const path& each : {link, link / version_directory_}) {
        if (const auto status = status_of(each, {})) tablespaces_.insert(status->identity);
      }
    }
  }

  void run() {
    const auto status = status_of(root_, {});
    const auto names = base::directory_names(root_);
    if (!status || !names) {
      base::fail(base::Code::not_found, "there is no data directory \"{}\"", root_.string());
    }
    ancestors_.push_back(status->identity);
    for (const std::string& name : *names) {
      if (!postgres::is_left_out(name)) top_entry(name);
    }
  }

 private:
  void top_entry(const std::string& name) {
    if (name == "pg_wal") {
      chosen_directories(name, wal_directories);
    } else if (contains(emptied_directories, name)) {
      chosen_directories(name, std::array<std::string_view, 0>{});
    } else {
      entry(name);
    }
  }

  /// A directory of whose contents only some directories count, and these empty.
  template <std::size_t size>
  void chosen_directories(const std::string& name,
                          const std::array<std::string_view, size>& inside) {
    const auto status = status_of(root_ / name, name);
    if (!status || !status->is_directory) return;
    visit_(status->entry);
    for (const std::string_view each : inside) {
      const std::string relative = fmt::format("{}/{}", name, each);
      const auto inner = status_of(root_ / relative, relative);
      if (inner && inner->is_directory) visit_(inner->entry);
    }
  }

  void entry(const std::string& relative) {
    auto status = status_of(root_ / relative, relative);
    if (!status) return;
    if (status->is_regular) {
      visit_(status->entry);
    } else if (status->is_directory) {
      directory(*status);
    }
  }

  void directory(const Status& status) {
    const std::string& relative = status.entry.path;
    // Its contents come by way of pg_tblspc (pitfall B16; skippath of sendDir in basebackup.c).
    if (tablespaces_.contains(status.identity)) return visit_(status.entry);
    descend(status, [&](const std::vector<std::string>& names) {
      const std::set<std::uint32_t> unlogged = unlogged_relations(relative, names);
      for (const std::string& name : names) {
        const std::string inner = relative + "/" + name;
        if (is_left_out(inner, name, unlogged)) continue;
        if (relative == tablespace_directory && number(name) && is_link(root_ / inner)) {
          tablespace(inner);
        } else {
          entry(inner);
        }
      }
    });
  }

  /// A tablespace may be shared with clusters of other versions; each has a directory of its own.
  void tablespace(const std::string& relative) {
    const auto status = status_of(root_ / relative, relative);
    if (!status || !status->is_directory) return;
    visit_(status->entry);
    const std::string inner = relative + "/" + version_directory_;
    const auto version = status_of(root_ / inner, inner);
    if (!version || !version->is_directory) return;
    descend(*version, [&](const std::vector<std::string>& names) {
      for (const std::string& name : names) {
        if (!name.starts_with("pgsql_tmp")) entry(inner + "/" + name);
      }
    });
  }

  /// Visits a directory and what is in it, unless it has just vanished. The path to it is kept to
  /// notice a link that leads back into itself.
  template <typename Inside>
  void descend(const Status& status, const Inside& inside) {
    const std::string& relative = status.entry.path;
    if (std::find(ancestors_.begin(), ancestors_.end(), status.identity) != ancestors_.end()) {
      throw base::Error(base::Code::io,
                        fmt::format("cannot walk \"{}\": a symbolic link in it leads back to a "
                                    "directory that holds it",
                                    (root_ / relative).string()),
                        "remove the link, or let it point elsewhere");
    }
    const auto names = base::directory_names(root_ / relative);
    if (!names) return;
    visit_(status.entry);
    ancestors_.push_back(status.identity);
    inside(*names);
    ancestors_.pop_back();
  }

  /// Which relations of this directory have an init fork, and so are reset by every recovery.
  static std::set<std::uint32_t> unlogged_relations(const std::string& directory,
                                                    const std::vector<std::string>& names) {
    std::set<std::uint32_t> unlogged;
    for (const std::string& name : names) {
      if (name.find("_init") == std::string::npos) continue;
      const auto file = relation_file(directory + "/" + name);
      if (file && file->fork == RelationFile::Fork::init && !file->temporary) {
        unlogged.insert(file->relation);
      }
    }
    return unlogged;
  }

  static bool is_left_out(const std::string& relative, std::string_view name,
                          const std::set<std::uint32_t>& unlogged) {
    if (name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init")) return true;
    const auto file = relation_file(relative);
    if (!file) return false;
    return file->temporary ||
           (file->fork != RelationFile::Fork::init && unlogged.contains(file->relation));
  }

  path root_;
  std::string version_directory_;
  const std::function<void(const DirectoryEntry&)>& visit_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> tablespaces_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ancestors_;
};

}  // namespace

std::optional<RelationFile> relation_file(std::string_view path_text) {
  const auto found = in_relation_directory(path_text);
  if (!found) return std::nullopt;
  RelationFile file;
  file.tablespace = found->tablespace;
  file.database = found->database;
  std::string_view rest = found->name;
  if (rest.starts_with('t')) {
    rest.remove_prefix(1);
    file.temporary = true;
    const std::string_view backend = take_until(rest, '_');
    if (backend != "0" && !number(backend)) return std::nullopt;
  }
  if (const std::size_t dot = rest.find('.'); dot != std::string_view::npos) {
    const auto segment = number(rest.substr(dot + 1));
    if (!segment) return std::nullopt;
    file.segment = *segment;
    rest = rest.substr(0, dot);
  }
  if (const std::size_t underscore = rest.find('_'); underscore != std::string_view::npos) {
    const auto fork = fork_named(rest.substr(underscore + 1));
    if (!fork) return std::nullopt;
    file.fork = *fork;
    rest = rest.substr(0, underscore);
  }
  const auto relation = number(rest);
  if (!relation) return std::nullopt;
  file.relation = *relation;
  return file;
}

bool is_left_out(std::string_view path_text) {
  if (contains(top_files_left_out, path_text)) return true;
  const std::string_view top = path_text.substr(0, path_text.find('/'));
  if (top.size() < path_text.size() && (top == "pg_wal" || contains(emptied_directories, top))) {
    return true;
  }
  const std::string_view name = path_text.substr(path_text.rfind('/') + 1);
  if (name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init")) return true;
  const auto file = relation_file(path_text);
  return file && file->temporary;
}

void walk_data_directory(const base::fs::path& data_directory, std::string_view version_directory,
                         const std::function<void(const DirectoryEntry&)>& visit) {
  Walk(data_directory, version_directory, visit).run();
}

std::vector<Tablespace> linked_tablespaces(const base::fs::path& data_directory) {
  std::vector<Tablespace> tablespaces;
  const path directory = data_directory / tablespace_directory;
  for (const std::string& name :
       base::directory_names(directory).value_or(std::vector<std::string>{})) {
    const auto oid = number(name);
    if (!oid || !is_link(directory / name)) continue;
    std::error_code failed;
    const path target = base::fs::read_symlink(directory / name, failed);
    if (!failed) tablespaces.push_back({*oid, target.string()});
  }
  std::sort(tablespaces.begin(), tablespaces.end(),
            [](const Tablespace& a, const Tablespace& b) { return a.oid < b.oid; });
  return tablespaces;
}

int major_version(const base::fs::path& data_directory) {
  const auto bytes = base::read_file(data_directory / "PG_VERSION");
  if (!bytes) {
    throw base::Error(base::Code::not_found,
                      fmt::format("\"{}\" is no PostgreSQL data directory: it has no PG_VERSION",
                                  data_directory.string()),
                      "name the directory that SHOW data_directory prints");
  }
  const std::string_view text = base::text(*bytes);
  int major = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), major);
  if (error != std::errc() || major <= 0) {
    base::fail(base::Code::corrupt, "\"{}\" does not begin with a version number",
               (data_directory / "PG_VERSION").string());
  }
  return major;
}

}  // namespace holdfast::postgres
