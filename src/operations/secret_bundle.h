#pragma once

// What is in a bundle of secrets, and the way into and out of its seal.
//
// Sealed is a JSON document that people can read once `age -d` has opened it: a manifest
// ("secrets") and the values by name. The repository keeps the same manifest without values in the
// clear for who has its key (repository/secret_bundles.h).
//
// `age` itself seals and opens, as a program. Values go through pipes: never through arguments, the
// environment or a file.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/file.h"
#include "base/time.h"

namespace holdfast::operations {

/// All that may be known of a secret by who may not know it.
struct SecretFacts {
  std::string name;
  std::uint32_t version = 1;  ///< counts each change that a bundle saw
  base::Timestamp since;      ///< the first bundle that has this version
  std::string fingerprint;    ///< HMAC-SHA256 of name and value; the key depends on where it stands
  std::string kind;           ///< its class
  std::string owner;
  std::optional<bool> rotate;
  std::vector<std::string> targets;
  std::string source;  ///< "env_file", "file", "command"
  std::string from;    ///< the path of the file

  bool operator==(const SecretFacts&) const = default;
};

struct Secret {
  SecretFacts facts;
  std::string value;  ///< any bytes
};

nlohmann::json to_json(const SecretFacts& facts);
/// Throws Error(corrupt).
SecretFacts secret_facts(const nlohmann::json& document);

struct SecretBundle {
  std::string id;
  std::string cluster;
  base::Timestamp created;
  std::vector<Secret> secrets;
};

/// The text to seal. Fingerprints in it are under a key of its own, which is in it.
std::string write_bundle(const SecretBundle& bundle);
/// Throws Error(corrupt) for what is not what write_bundle wrote.
SecretBundle read_bundle(std::string_view text);

/// Seals to all of them. Throws Error(not_found) without `age`, Error(configuration) if age refuses
/// a recipient.
base::Bytes seal_with_age(const std::string& text, const std::vector<std::string>& recipients);
/// Throws Error(key) if the identity does not open it. age asks for the passphrase of an identity
/// that has one on the terminal itself.
std::string open_with_age(base::View sealed, const base::fs::path& identity);

}  // namespace holdfast::operations
