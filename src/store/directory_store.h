#pragma once

// An object store in a local directory.
//
// An object is written to a file in ".tmp" of the root, synced, linked to its final name (which
// fails if that exists: create-if-absent by the kernel), and the directories that lead to it are
// synced. So a name that can be seen is whole, and durable unless its writer died right then.
//
// Directories stay when they have become empty, but for those whose name ends in ".d" (the parts of
// something that is being written, by one writer at a time).
//
// What is written is written below the directory that was looked at when the writer was made: a
// store that goes away meanwhile (a mount, a rename) does not grow again where it was.
//
// One object that cannot be read (its blocks, its permissions, or that it is no plain file) is
// Error(corrupt), as long as the store itself answers: it costs that object and no other. Nothing
// that is no plain file is ever opened. stat() says nothing of whether it can be.
//
// A temporary file stays locked (flock) while its writer lives; what a dead writer left behind is
// removed by `sweep_unfinished`.

#include <memory>
#include <mutex>
#include <set>

#include "base/file.h"
#include "store/object_store.h"

namespace holdfast::store {

/// Whom new files belong to. As root: to whoever owns the root directory, so that the server's user
/// can go on with a repository that root has written to. Otherwise to us.
struct Owner {
  std::optional<uid_t> uid;
  gid_t gid = 0;
};

class FileWriter;
class Place;

class DirectoryStore : public ObjectStore {
 public:
  explicit DirectoryStore(base::fs::path root);

  std::unique_ptr<ObjectReader> open(std::string_view name) override;
  std::unique_ptr<ObjectWriter> create(std::string_view name) override;
  std::optional<ObjectInfo> stat(std::string_view name) override;
  std::vector<ObjectInfo> list(std::string_view directory) override;
  std::vector<std::string> names(std::string_view directory) override;
  bool remove(std::string_view name) override;
  void settle(std::string_view directory) override;
  void hold_to(std::string_view name);
  std::size_t sweep_unfinished() override;
  std::string url() const override;

 private:
  base::fs::path path_of(std::string_view name) const;
  friend class FileWriter;
  void prepare_directory(const base::Fd& root, const base::fs::path& directory);
  void forget_directory(const base::fs::path& directory);

  base::fs::path root_;
  Owner owner_;
  std::shared_ptr<const Place> place_;
  std::mutex mutex_;
  /// Directories, relative, whose way from the root was synced by us.
  std::set<base::fs::path> durable_;
};

/// From now on this store is the one in which the object `name` is, with its bytes of now. Where
/// that object is not (a disk that is not mounted any more, or another one in its place) nothing is
/// made and nothing is said to be absent: Error(unreachable).
void hold_to(ObjectStore& store, std::string_view name);

}  // namespace holdfast::store
