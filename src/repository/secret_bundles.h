#pragma once

// Bundles of secrets, sealed to people's own keys, beside the backups of a cluster.
//
// clusters/NAME/secrets/ID.age is what `age` made: this repository's key does not open it, and
// `age -d` does without Holdfast. ID.json says what is in it, never a value: it is written last, so
// a bundle exists when it does, and holds the digest of the other, so that nobody puts another
// bundle in its place unseen. Bundles stay: an old one may have the key to old data.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

class SecretBundles {
 public:
  SecretBundles(const Repository& repository, std::string cluster);

  /// Stores both and reads the bundle back; durable on return.
  void put(const std::string& id, base::View sealed, nlohmann::json document) const;
  /// The IDs of those that exist, the oldest first.
  std::vector<std::string> all() const;
  /// The IDs of what is sealed and not described, and so is no bundle: whoever made it died between
  /// the two objects or is there just now, or somebody removed the second.
  std::vector<std::string> unfinished() const;
  /// What it says of itself; nullopt if there is none, Error(corrupt) if it is not as it was
  /// written, or another one's.
  std::optional<nlohmann::json> read(const std::string& id) const;
  /// The bundle itself. Throws Error(corrupt) if it is gone or not as it was written.
  base::Bytes sealed(const std::string& id) const;
  std::string object_name(const std::string& id) const;

 private:
  std::vector<std::string> names_ending(std::string_view ending) const;
  std::string directory() const { return "clusters/" + cluster_ + "/secrets"; }
  base::Bytes checked(const std::string& id, const nlohmann::json& document) const;

  const Repository& repository_;
  std::string cluster_;
};

}  // namespace holdfast::repository
