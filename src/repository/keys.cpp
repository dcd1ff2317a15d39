#include "repository/keys.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "repository/ids.h"

namespace holdfast::repository {

namespace {

using base::Bytes;
using base::Code;
using base::Error;
using base::Secret;
using nlohmann::json;

/// 2^15 costs 32 MiB and about 0.1 s: enough against guessing, little enough for each `wal push`.
constexpr unsigned scrypt_log_n = 15;

Secret key_from_file(const std::string& path) {
  const auto bytes = base::read_file(path);
  if (!bytes) {
    throw Error(Code::key,
                fmt::format("could not read key file \"{}\": there is no such file", path),
                "put the key file back, or write the key of the recovery kit into it");
  }
  return parse_key_text(base::text(*bytes), fmt::format("key file \"{}\"", path));
}

Secret key_from_command(const std::string& command) {
  const base::Outcome outcome = base::run({.argv = {"/bin/sh", "-c", command},
                                           .directory = {},
                                           .environment = {},
                                           .input = {},
                                           .user = {}});
  if (outcome.status != 0) {
    throw Error(Code::key, fmt::format("the key command failed with status {}", outcome.status),
                "run key_command of holdfast.toml by hand, as this user, and see what it says");
  }
  return parse_key_text(outcome.output, "the output of the key command");
}

/// The key that a file or a command yields; nothing for a passphrase.
std::optional<Secret> given_key(const KeySource& source) {
  if (!source.passphrase.empty()) return std::nullopt;
  return source.key_file.empty() ? key_from_command(source.key_command)
                                 : key_from_file(source.key_file);
}

/// The key that wraps: stretched from a passphrase, or derived from the given one.
Secret wrapping_key(const KeySource& source, const std::optional<Secret>& given,
                    const json& wrapped) {
  const Bytes salt = base::from_hex(wrapped.at("salt").get<std::string>());
  if (!given) {
    const auto log_n = wrapped.at("log_n").get<unsigned>();
    if (log_n < 10 || log_n > 22)
      base::fail(Code::corrupt, "a stored key asks for scrypt {}", log_n);
    return base::stretch(source.passphrase, salt, log_n);
  }
  return base::derive(*given, salt, "holdfast key wrap");
}

std::string_view kind_of(const KeySource& source) {
  if (!source.passphrase.empty()) return "passphrase";
  return source.key_file.empty() ? "key_command" : "key_file";
}

std::optional<Secret> unwrap(const KeySource& source, const std::optional<Secret>& given,
                             const std::string& repository_id, const json& wrapped) {
  const std::string kind = wrapped.at("kind").get<std::string>();
  if ((kind == "passphrase") != (kind_of(source) == "passphrase")) return std::nullopt;
  Bytes body = base::from_hex(wrapped.at("wrapped").get<std::string>());
  const Bytes tag = base::from_hex(wrapped.at("check").get<std::string>());
  if (body.size() != 32 || tag.size() != base::seal_tag_size) return std::nullopt;
  base::Sealer sealer(wrapping_key(source, given, wrapped));
  if (!sealer.open(0, base::view(repository_id), body, tag)) return std::nullopt;
  return Secret(body);
}

}  // namespace

std::string key_text(const Secret& key) {
  return base::to_hex(key.bytes());
}

Secret parse_key_text(std::string_view text, std::string_view where) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.remove_suffix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) {
    text.remove_prefix(1);
  }
  try {
    if (text.size() == 64) return Secret(base::from_hex(text));
  } catch (const Error&) {
    // Said below, without quoting what may be a secret.
  }
  throw Error(Code::key,
              fmt::format("cannot use {} as a key: it is not 64 hexadecimal digits", where),
              "`openssl rand -hex 32` makes such a key");
}

Secret make_key_file(const std::string& path) {
  const Secret key = base::random_secret();
  if (base::fs::path(path).has_parent_path()) {
    base::make_directories(base::fs::path(path).parent_path());
  }
  // Whole or not at all: half a key file would close the repository that is made with it.
  std::string temporary = path + ".XXXXXX";
  const base::Fd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) base::fail_errno(fmt::format("create \"{}\"", temporary), errno);
  int failed = 0;
  try {
    base::write_all(file, base::view(key_text(key) + "\n"), temporary);
    base::sync_file(file, temporary);
    failed = ::link(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  ::unlink(temporary.c_str());
  if (failed != 0) base::fail_errno(fmt::format("create key file \"{}\"", path), failed);
  base::sync_directory(base::fs::absolute(path).parent_path());
  return key;
}

std::string fingerprint(const Secret& repository_key, const std::string& repository_id) {
  const Secret derived =
      base::derive(repository_key, base::view(repository_id), "holdfast fingerprint");
  return base::to_hex(derived.bytes().first(16));
}

std::string add_key(store::ObjectStore& store, const std::string& repository_id,
                    const Secret& repository_key, const KeySource& source) {
  json wrapped = {{"kind", kind_of(source)}, {"salt", base::to_hex(base::random_bytes(16))}};
  if (!source.passphrase.empty()) wrapped["log_n"] = scrypt_log_n;
  Bytes body = base::copy(repository_key.bytes());
  Bytes tag(base::seal_tag_size);
  base::Sealer(wrapping_key(source, given_key(source), wrapped))
      .seal(0, base::view(repository_id), body, tag);
  wrapped["wrapped"] = base::to_hex(body);
  wrapped["check"] = base::to_hex(tag);
  const std::string name = "keys/" + to_string(new_object_id());
  if (!store.put(name, base::view(wrapped.dump(2) + "\n"))) {
    base::fail(Code::internal, "object \"{}\" exists already", name);
  }
  return name;
}

Secret unlock(store::ObjectStore& store, const std::string& repository_id,
              const std::string& expected_fingerprint, const KeySource& source) {
  if (source.empty()) {
    throw Error(Code::key, "cannot open the repository: it is encrypted and no key is configured",
                "set key_file or key_command in holdfast.toml, or HOLDFAST_PASSPHRASE");
  }
  const auto is_right = [&](const Secret& key) {
    return fingerprint(key, repository_id) == expected_fingerprint;
  };
  // Asked for once, as a command may take its time; and the key of the recovery kit needs no keys/.
  const std::optional<Secret> given = given_key(source);
  if (given && is_right(*given)) return *given;
  std::optional<Error> unreadable;
  for (const std::string& name : store.names("keys")) {
    try {  // one damaged way in must not close the others
      const auto object = store.get("keys/" + name);
      const json wrapped = object ? json::parse(base::text(*object), nullptr, false) : json();
      if (!wrapped.is_object()) continue;
      const auto key = unwrap(source, given, repository_id, wrapped);
      if (key && is_right(*key)) return *key;
    } catch (const json::exception&) {
      continue;
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) unreadable = error;
    }
  }
  if (unreadable) throw unreadable->with_context("could not try all keys of the repository");
  throw Error(
      Code::key,
      source.passphrase.empty()
          ? fmt::format("cannot open the repository: the key of {} does not fit",
                        source.key_file.empty() ? "the key command" : "\"" + source.key_file + "\"")
          : "cannot open the repository: wrong passphrase",
      "use the key this repository was made with; the recovery kit has it");
}

}  // namespace holdfast::repository
