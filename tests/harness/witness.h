#pragma once

// Independent witnesses: load from pgbench, moments that are known exactly, and PostgreSQL's own
// checks of what was restored.

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "harness/harness.h"

namespace holdfast::tests {

/// Asks until `condition` holds; throws that `what` did not happen within a minute.
void eventually(std::string_view what, const std::function<bool()>& condition);

/// pgbench with these arguments, on a cluster.
base::Command pgbench(const Cluster& cluster, const std::vector<std::string>& arguments);

/// pgbench's own transactions on its own tables, from `clients` sessions at once, until stop() or
/// the end of its life. It is writing when the constructor returns.
class Load {
 public:
  Load(const Place& place, const Cluster& cluster, int scale, int clients = 4);
  void stop();
  /// How many transactions have been committed so far.
  long long transactions() const;

 private:
  const Cluster& cluster_;
  std::unique_ptr<base::Child> child_;
};

/// Count and a digest of each table of schema public, whatever the order of rows.
std::string content(postgres::Session& session);

/// A moment at which nobody could write: all of these name the same state.
struct Moment {
  std::string name;  ///< of the restore point
  std::string content;
  std::string time;  ///< with zone
  std::string lsn;   ///< the end of the restore point's record
};
/// Locks pgbench's tables against writing, notes what they hold, and makes a restore point.
Moment mark(const Cluster& cluster, const std::string& name);

/// What pg_amcheck (or the extension, where that program is missing) finds wrong in any database.
std::string amcheck(const Cluster& cluster);
/// The relation files of a stopped cluster with pages whose checksums fail: pg_checksums where it
/// is installed for this version.
std::string bad_pages(const Cluster& cluster);

/// The file of an object that belongs to a cluster, in the place's repository: "wal/00000001/...".
fs::path object_of(const Place& place, const Cluster& cluster, std::string_view name);
/// The segment that is being written, as pg_wal names it.
std::string current_segment(const Cluster& cluster);
/// Ends the current segment and waits until the repository has it; its name.
std::string finish_segment(const Place& place, const Cluster& cluster);

/// Makes holdfast.toml mean another data directory and server, in the same repository.
void point_configuration_at(const Place& place, const Cluster& cluster);
/// archive_mode and archive_command as Place::cluster sets them, for Cluster::start.
postgres::Settings archiving(const Place& place);

/// Where a restored data directory differs from the one on disk, byte by byte: a line for each
/// file, with the first page that does. Left out are the files that say where a cluster stands,
/// what restoring adds, and what PostgreSQL itself does not call different.
std::string differences_on_disk(const fs::path& truth, const fs::path& restored);

/// Takes data_directory out of holdfast.toml.
void make_agentless(const Place& place);

/// Inverts one byte of a file.
void flip_byte(const fs::path& file, std::uint64_t offset);
/// Replaces a file and keeps its owner.
void overwrite(const fs::path& file, std::string_view text);
std::string text_of(const fs::path& file);
/// All files below a directory with their content, links as their targets.
std::map<std::string, std::string> tree_of(const fs::path& directory);

}  // namespace holdfast::tests
