#pragma once

// The repository key and the ways to it.
//
// Everything in an encrypted repository is sealed under keys derived from one random repository
// key. That key is never stored bare: each object below keys/ holds it wrapped under one way in: a
// passphrase (scrypt), a key file, or a command that prints a key (a hook for a KMS). A way is
// added or taken away without touching data. The recovery kit carries the repository key itself, so
// that a backup can be read even if all of keys/ is lost (TRAPS OS9).

#include <optional>
#include <string>

#include "base/seal.h"
#include "store/object_store.h"

namespace holdfast::repository {

/// What the configuration or the user offers to unlock a repository. At most one is set; none at
/// all means that the repository must be unencrypted.
struct KeySource {
  std::string passphrase;
  std::string key_file;     ///< path; holds 64 hexadecimal digits
  std::string key_command;  ///< run by /bin/sh -c; prints 64 hexadecimal digits
  bool empty() const { return passphrase.empty() && key_file.empty() && key_command.empty(); }
};

/// 32 bytes as people and files carry them: 64 hexadecimal digits; white space around is ignored.
std::string key_text(const base::Secret& key);
/// Throws Error(key) for anything else.
base::Secret parse_key_text(std::string_view text, std::string_view where);

/// Makes a new key file (mode 0600, refuses to overwrite) and returns its key.
base::Secret make_key_file(const std::string& path);

/// A public digest of a repository key, by which the right one is known.
std::string fingerprint(const base::Secret& repository_key, const std::string& repository_id);

/// Stores the repository key wrapped under `source`; returns the object's name.
std::string add_key(store::ObjectStore& store, const std::string& repository_id,
                    const base::Secret& repository_key, const KeySource& source);

/// Finds the repository key by `source`: a wrapped key that it opens, or (a key file or command
/// that yields the repository key itself, as the recovery kit prints it) the key whose fingerprint
/// is `expected_fingerprint`. Throws Error(key) if there is none: wrong passphrase, wrong file.
base::Secret unlock(store::ObjectStore& store, const std::string& repository_id,
                    const std::string& expected_fingerprint, const KeySource& source);

}  // namespace holdfast::repository
