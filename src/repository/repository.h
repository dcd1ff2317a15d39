#pragma once

// A repository: one object store, one key, and the places in it that belong to clusters.
//
// `holdfast.json` is what makes a prefix a repository. It is written last by create() and by
// nothing else; that it is absent is believed only on proof (TRAPS RC5), and an unknown format is
// refused.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "repository/container.h"
#include "repository/keys.h"
#include "store/object_store.h"

namespace holdfast::repository {

/// Where the objects of one PostgreSQL system are: clusters/NAME/SYSTEMID.
struct ClusterPlace {
  std::string cluster;    ///< its name in the configuration
  std::string system_id;  ///< PostgreSQL's system identifier, in decimal
  std::string directory() const { return "clusters/" + cluster + "/" + system_id; }
};

/// Letters, digits, "-" and "_", at most 63: what a cluster may be called (TRAPS CC12).
bool is_cluster_name(std::string_view name);

class Repository {
 public:
  struct Created;
  /// Makes a repository in an empty place, encrypted by a fresh key unless `source` is empty.
  /// Throws Error(conflict) if there is one already. Of two who race exactly one succeeds.
  static Created create(std::unique_ptr<store::ObjectStore> store, const KeySource& source);
  /// Throws Error(not_found) if there is none, Error(key) if the key does not fit.
  static Repository open(std::unique_ptr<store::ObjectStore> store, const KeySource& source);
  /// Is there a repository? Anything but a clear yes or no is thrown.
  static bool exists(store::ObjectStore& store);

  store::ObjectStore& store() const { return *store_; }
  const std::string& id() const { return id_; }
  const Protection& protection() const { return protection_; }
  bool encrypted() const { return protection_.key.has_value(); }
  /// For hashes of pages, under this repository's own secret.
  const base::KeyedHash& page_hash() const { return page_hash_; }
  /// Authenticates small plain objects (backup.json). Without encryption it only finds accidents.
  std::string mac(std::string_view purpose, std::string_view text) const;

  /// Registers a PostgreSQL system under a cluster's name; false if it was known already. WAL and
  /// backups of systems that are not registered are refused (INV-5).
  bool register_system(const ClusterPlace& place, const std::string& note);
  bool is_registered(const ClusterPlace& place) const;
  /// The systems registered for a cluster; the one that was written to last (activity.h) is last.
  std::vector<std::string> systems(const std::string& cluster) const;
  std::vector<std::string> clusters() const;

 private:
  Repository(std::unique_ptr<store::ObjectStore> store, std::string id, Protection protection);

  std::unique_ptr<store::ObjectStore> store_;
  std::string id_;
  Protection protection_;
  base::KeyedHash page_hash_;
  base::Secret mac_key_;
};

struct Repository::Created {
  Repository repository;
  std::optional<base::Secret> key;  ///< for the recovery kit
};

}  // namespace holdfast::repository
