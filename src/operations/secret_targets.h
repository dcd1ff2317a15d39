#pragma once

// Where secrets are restored to: an environment file, a directory of Docker Compose secrets, AWS
// Secrets Manager, Vault.
//
// What is there and differs is replaced only if that was asked for. What was written is read back.

#include <memory>

#include "operations/secrets.h"

namespace holdfast::operations {

struct SecretTargetRequest {
  std::string kind;               ///< one of secret_target_kinds
  base::fs::path path;            ///< of the environment file or the directory
  std::string prefix;             ///< before each name in a store: "prod/"
  std::string mount;              ///< Vault's; empty: "secret"
  std::vector<std::string> only;  ///< these secrets; empty: all that belong there
};

class SecretTarget {
 public:
  virtual ~SecretTarget() = default;
  /// For people: "environment file /srv/app/.env".
  virtual std::string describe() const = 0;
  virtual std::optional<std::string> read(const std::string& name) = 0;
  /// Throws Error(usage) for a secret that this target cannot hold.
  virtual void check(const Secret& secret) const = 0;
  /// Names of what would be lost if it were written as a whole.
  virtual std::vector<std::string> others(const std::vector<Secret>&) { return {}; }
  /// Writes all of them, of which `changed` are not there as they should be.
  virtual void write(const std::vector<Secret>& all, const std::vector<Secret>& changed) = 0;
};

/// Throws Error(usage) for what is missing in the request, Error(key) for credentials.
std::unique_ptr<SecretTarget> open_secret_target(const SecretTargetRequest& request);

/// Does it go there, if nothing is said with --only?
bool belongs_there(const SecretFacts& facts, const SecretTargetRequest& request);
/// Those that are meant. Throws Error(not_found) for a name that is not there.
std::vector<Secret> meant_for(const SecretTargetRequest& request, std::vector<Secret> secrets);

enum class TargetState {
  same,
  differs,
  missing,
  extra,
  left_out,  ///< in the bundle, but nobody said where it belongs, and it does not fit there
};
std::string_view name_of(TargetState state);
struct TargetFinding {
  std::string name;
  TargetState state = TargetState::same;
};

/// Those of a bundle that are not meant for a target, though nobody said that they are for another.
std::vector<TargetFinding> left_out(const SecretTargetRequest& request,
                                    const std::vector<SecretFacts>& all);

struct SecretRestore {
  std::string target;
  std::vector<TargetFinding> found;  ///< before
  bool written = false;
};
/// Throws Error(refused) if something else is there and `replace` was not asked for. With `dry_run`
/// it only looks.
SecretRestore restore_secrets(SecretTarget& target, const std::vector<Secret>& secrets,
                              bool replace, bool dry_run);

/// Compares what is at the target with a bundle, by fingerprint.
std::vector<TargetFinding> verify_secrets(SecretTarget& target, const ChosenBundle& chosen,
                                          const SecretTargetRequest& request);

}  // namespace holdfast::operations
