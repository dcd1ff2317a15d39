#pragma once

// `secrets`: a bundle of what a service needs besides its data, sealed beside the backups.
//
// Sealing needs public keys only; opening needs an identity, which nobody keeps here. Names and
// fingerprints can be read and compared without one: the repository keeps fingerprints under a key
// that comes from its own, so whoever cannot open the repository cannot try out guesses.

#include "operations/catalog.h"
#include "operations/repositories.h"
#include "operations/secret_bundle.h"
#include "repository/secret_bundles.h"

namespace holdfast::operations {

/// What is known of a bundle without opening it.
struct BundleInfo {
  std::string id;
  base::Timestamp created;
  std::uint64_t bytes = 0;
  std::vector<std::string> recipients;  ///< public keys of all
  std::vector<std::string> offline;     ///< those of them that are off line
  std::vector<SecretFacts> secrets;     ///< fingerprints under the repository's key
};

/// The repository's own fingerprint of a value.
std::string secret_fingerprint(const Site& site, const std::string& name, const std::string& value);

struct SealOutcome {
  BundleInfo bundle;
  bool sealed = false;  ///< false: the newest bundle has all this already
};
/// Throws Error(refused) for fewer than two recipients, none that is off line, or a repository
/// without encryption: there fingerprints would let everybody try out guesses.
SealOutcome seal_secrets(const Site& site, const std::vector<Secret>& secrets);

/// All bundles, the oldest first. One that cannot be read is in `unreadable`.
struct BundleList {
  std::vector<BundleInfo> bundles;
  std::vector<std::string> unreadable;
};
BundleList list_bundles(const Site& site);

/// A bundle that is there and whole.
struct ChosenBundle {
  Site site;
  BundleInfo info;
  base::Bytes sealed;
};
/// The one called `id`, or the newest of all repositories; where it cannot be read, `say` is told
/// and the next one is tried. `repositories` must outlive the outcome. Throws Error(not_found).
ChosenBundle choose_bundle(const std::vector<Configuration>& repositories,
                           const std::string& cluster, const std::string& id,
                           const SayFailure& say);

/// Opens it; throws Error(key) without an identity that can, Error(corrupt) if it holds another
/// bundle than it should.
std::vector<Secret> open_bundle(const ChosenBundle& chosen, const base::fs::path& identity);

enum class SecretChange { same, changed, added, removed };
std::string_view name_of(SecretChange change);
struct SecretDifference {
  std::string name;
  SecretChange change = SecretChange::same;
  std::string sealed;  ///< fingerprints; empty where there is none
  std::string now;
};
/// What the sources have against what the bundle has.
std::vector<SecretDifference> compare_secrets(const ChosenBundle& chosen,
                                              const std::vector<Secret>& secrets);

/// What happened, as far as rotation goes by it.
struct Incident {
  bool host_lost = false;    ///< somebody else may have its disks
  bool compromised = false;  ///< somebody may have read secrets or used them
};
struct Rotation {
  SecretFacts facts;
  bool rotate = false;
  std::string why;
};
/// Those to rotate first.
std::vector<Rotation> plan_rotation(const std::vector<SecretFacts>& secrets,
                                    const Incident& incident);

}  // namespace holdfast::operations
