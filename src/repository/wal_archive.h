#pragma once

// The WAL of one cluster, file by file.
//
// A WAL file here is a name and bytes; what they mean is checked by who brings them (operations).
// The archive promises INV-2 and its half of INV-5: a name never changes its bytes. Putting the
// same again is accepted, other bytes are refused; where not all bytes of a file count, who brings
// it says what is the same.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "repository/gaps.h"
#include "repository/wal_slices.h"

namespace holdfast::repository {

class WalArchive {
 public:
  WalArchive(const Repository& repository, ClusterPlace place);

  const ClusterPlace& place() const { return place_; }

  enum class Put { stored, identical };
  /// Are these two contents of one name the same? Asked only if their bytes are not.
  using Same = std::function<bool(base::View stored, base::View offered)>;
  /// Durable on return. Throws Error(conflict) if this name holds something else. `workers`
  /// threads compress.
  Put put(
      const std::string& name, base::View bytes, unsigned workers,
      const Same& same = [](base::View, base::View) { return false; }) const;
  /// nullopt only if the archive has no such file. Error(corrupt) if it has, but not as written.
  std::optional<base::Bytes> get(const std::string& name) const;
  bool has(const std::string& name) const;
  /// All that it has now, slices too, is durable on return, whoever wrote it.
  void settle() const;

  struct File {
    std::string name;
    std::uint64_t stored_bytes = 0;
    base::Timestamp written;
  };
  /// The timelines that have files: "00000001", sorted.
  std::vector<std::string> timelines() const;
  /// The files of one timeline (segments, partial and backup files), sorted by name.
  std::vector<File> files(const std::string& timeline) const;
  /// What there is of segments that are not complete yet.
  WalSlices slices() const { return {repository_, place_}; }
  /// What is known to be missing, or not to follow on what is before it.
  Gaps gaps() const { return {repository_, place_}; }
  /// When the newest of its segments and slices was stored, by the store's clock.
  std::optional<base::Timestamp> last_written() const;
  /// The names of history files, sorted.
  std::vector<std::string> histories() const;

 private:
  std::string object_name(const std::string& name) const;
  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
