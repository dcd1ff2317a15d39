#include "operations/tablespace_places.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/beneath.h"
#include "base/error.h"
#include "operations/restore_files.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using nlohmann::json;
using repository::LinkedDirectory;

bool holds_nothing(const path& directory) {
  const auto names = base::directory_names(directory);
  return !names || names->empty();
}

/// What a path leads to, as far as that is there.
path resolved(const path& name) {
  std::error_code failed;
  path found = base::fs::weakly_canonical(name, failed);
  if (failed) found = name.lexically_normal();
  return found.has_filename() ? found : found.parent_path();
}

bool is_within(const path& inner, const path& outer) {
  const auto [in, out] = std::mismatch(inner.begin(), inner.end(), outer.begin(), outer.end());
  return out == outer.end();
}

/// Neither a rename nor a remount changes it; a copy has another one. "" if it is not there.
std::string identity_of(const path& directory) {
  struct statx status {};
  if (::statx(AT_FDCWD, directory.c_str(), 0, STATX_INO | STATX_BTIME | STATX_TYPE, &status) != 0) {
    return "";
  }
  return fmt::format("{}:{}:{}.{}", static_cast<unsigned>(status.stx_mode & S_IFMT),
                     static_cast<std::uint64_t>(status.stx_ino), status.stx_btime.tv_sec,
                     status.stx_btime.tv_nsec);
}

std::string oid_of(const LinkedDirectory& tablespace) {
  return tablespace.path.substr(tablespace.path.rfind('/') + 1);
}

/// What `holdfast.places` says, if it is of this directory; places that are not what they were are
/// left out.
Places noted_places(const path& directory) {
  Places places;
  const auto top = base::Beneath::find(directory);
  const auto bytes = top ? top->read_file(std::string(places_file)) : std::nullopt;
  const json document = bytes ? json::parse(base::text(*bytes), nullptr, false) : json();
  if (!document.is_object() || document.value("directory", "") != identity_of(directory)) return {};
  const json noted = document.value("places", json::object());
  for (const auto& [link, place] : noted.items()) {
    const path name = place.value("path", "");
    if (!name.empty() && place.value("identity", "") == identity_of(name)) places[link] = name;
  }
  return places;
}

/// Where the directory's own link of a tablespace leads to.
std::optional<path> linked_place(const path& directory, const std::string& link) {
  std::error_code failed;
  path target = base::fs::read_symlink(directory / link, failed);
  if (failed || !target.is_absolute()) return std::nullopt;
  return target;
}

bool is_same(const path& a, const path& b) {
  std::error_code failed;
  return !a.empty() && !b.empty() && base::fs::equivalent(a, b, failed);
}

class Chooser {
 public:
  Chooser(const PlacesRequest& request, const RestoreOptions& options,
          const repository::BackupMap& map)
      : request_(request), options_(options), map_(map) {
    if (!options.delta) return;
    noted_ = noted_places(request.directory);
    is_production_ = is_same(request.directory, request.production);
  }

  TablespacePlaces choose() {
    read_mappings();
    TablespacePlaces result;
    for (const LinkedDirectory& link : map_.links)
      result.of_backup[link.path] = place_of(link, false);
    for (const LinkedDirectory& link : request_.replayed) {
      result.of_replay[link.path] = place_of(link, true);
    }
    if (!asked_.empty()) {
      base::fail(
          Code::usage,
          "cannot map tablespace \"{}\": neither the backup nor the WAL up to the target has "
          "such a tablespace",
          asked_.begin()->first);
    }
    check_apart(result);
    return result;
  }

 private:
  void read_mappings() {
    for (const std::string& mapping : options_.tablespaces) {
      const std::size_t equals = mapping.rfind('=');
      const path to = equals == std::string::npos ? "" : mapping.substr(equals + 1);
      if (!to.is_absolute()) {
        throw Error(Code::usage, fmt::format("cannot use \"{}\" as a tablespace mapping", mapping),
                    "write it as OID=/new/directory or /old/directory=/new/directory");
      }
      asked_[mapping.substr(0, equals)] = to;
    }
  }

  std::optional<path> asked_place(const LinkedDirectory& link) {
    std::optional<path> to;
    for (const std::string& key : {oid_of(link), link.location}) {
      const auto found = asked_.find(key);
      if (found == asked_.end()) continue;
      to = found->second;
      asked_.erase(found);
    }
    return to;
  }

  path place_of(const LinkedDirectory& link, bool replayed) {
    const auto asked = asked_place(link);
    const auto noted = noted_.find(link.path);
    path to = link.location;
    if (asked) {
      to = *asked;
    } else if (noted != noted_.end()) {
      to = noted->second;
    } else if (is_production_) {
      to = linked_place(request_.directory, link.path).value_or(to);
    }
    const std::string why = why_not(link, to, asked.has_value());
    if (why.empty()) return to;
    if (replayed && !asked && options_.replayed == RestoreOptions::Replayed::spare) {
      return options_.spare_tablespaces / oid_of(link);
    }
    throw Error(Code::refused,
                fmt::format("cannot restore tablespace {}{} into \"{}\": {}", oid_of(link),
                            replayed ? ", which was made after the backup," : "", to.string(), why),
                fmt::format("choose a place for it: --tablespace {}=/new/directory", oid_of(link)));
  }

  /// "" if the place is ours to write to.
  std::string why_not(const LinkedDirectory& link, const path& to, bool is_asked) const {
    const auto status = base::status_of(to);
    if (!status) return "";
    if (!S_ISDIR(status->st_mode)) return "it is no directory";
    if (holds_nothing(to)) return "";
    if (!options_.delta) return "it is not empty";
    if (is_used_by_a_server(to, request_.directory)) return "a running server uses it";
    const auto noted = noted_.find(link.path);
    if (noted != noted_.end() && is_same(noted->second, to)) return "";
    if (const auto linked = linked_place(request_.directory, link.path);
        linked && is_same(*linked, to) && (is_production_ || is_asked)) {
      return "";
    }
    return fmt::format("it is not empty, and nothing proves that it belongs to \"{}\"",
                       request_.directory.string());
  }

  /// One place may have several names.
  void check_apart(const TablespacePlaces& places) const {
    std::vector<std::pair<std::string, path>> all{
        {fmt::format("\"{}\"", request_.directory.string()), resolved(request_.directory)}};
    for (const Places* each : {&places.of_backup, &places.of_replay}) {
      for (const auto& [link, place] : *each) {
        const std::string name = fmt::format("tablespace {}", link.substr(link.rfind('/') + 1));
        const path here = resolved(place);
        for (const auto& [other, there] : all) {
          if (!is_within(here, there) && !is_within(there, here)) continue;
          throw Error(
              Code::refused,
              fmt::format("cannot restore {} into \"{}\": that is the place of {}, or "
                          "within it or around it",
                          name, place.string(), other),
              fmt::format("choose a place of its own for it: --tablespace {}=/new/directory",
                          link.substr(link.rfind('/') + 1)));
        }
        all.emplace_back(name, here);
      }
    }
  }

  const PlacesRequest& request_;
  const RestoreOptions& options_;
  const repository::BackupMap& map_;
  std::map<std::string, path> asked_;
  Places noted_;
  bool is_production_ = false;
};

}  // namespace

TablespacePlaces choose_places(const PlacesRequest& request, const RestoreOptions& options,
                               const repository::BackupMap& map) {
  return Chooser(request, options, map).choose();
}

void note_places(const path& directory, const TablespacePlaces& places, const std::string& owner) {
  json noted = json::object();
  for (const Places* each : {&places.of_backup, &places.of_replay}) {
    for (const auto& [link, place] : *each) {
      base::make_directories(place, 0700);
      noted[link] = {{"path", place.string()}, {"identity", identity_of(place)}};
    }
  }
  const auto top = base::Beneath(directory);
  if (noted.empty()) {
    top.remove(std::string(places_file));
    return;
  }
  const json document{{"directory", identity_of(directory)}, {"places", noted}};
  top.replace_file(std::string(places_file), base::view(document.dump(2) + "\n"));
  give_to(directory / places_file, owner);
}

bool is_used_by_a_server(const path& place, const path& own) {
  const path here = resolved(place);
  const auto meets = [&](const path& other) {
    const path there = resolved(other);
    return is_within(here, there) || is_within(there, here);
  };
  for (const std::string& name :
       base::directory_names("/proc").value_or(std::vector<std::string>{})) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code failed;
    // A server works in its data directory.
    const path directory = base::fs::read_symlink(path("/proc") / name / "cwd", failed);
    if (failed || is_same(directory, own)) continue;
    if (!base::fs::exists(directory / "postmaster.pid", failed)) continue;
    if (meets(directory)) return true;
    for (const auto& entry : base::fs::directory_iterator(directory / "pg_tblspc", failed)) {
      const path target = base::fs::read_symlink(entry.path(), failed);
      if (!failed && meets(target)) return true;
    }
  }
  return false;
}

}  // namespace holdfast::operations
