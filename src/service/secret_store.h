#pragma once

// Stores of secrets that others run: AWS Secrets Manager, HashiCorp Vault's KV version 2.
//
// A value is read, and written only on top of the one that was read: whoever writes at the same
// time is not overwritten by Vault (check-and-set), and is by AWS, which keeps the previous
// version. Values and credentials are in no message. Nothing is sent without TLS but to this
// machine itself.

#include <memory>
#include <optional>
#include <string>

#include "base/http.h"
#include "service/aws_signature.h"

namespace holdfast::service {

class SecretStore {
 public:
  virtual ~SecretStore() = default;
  /// nullopt if there is none of this name. Throws Error(unreachable), Error(permission), ...
  virtual std::optional<std::string> read(const std::string& name) = 0;
  /// A new version, or a new secret. Doing it twice makes no second version.
  virtual void write(const std::string& name, const std::string& value) = 0;
};

struct AwsSecretsSettings {
  std::string endpoint;  ///< empty: Amazon's in that region
  std::string region;
  AwsCredentials credentials;
};
std::unique_ptr<SecretStore> aws_secrets_manager(AwsSecretsSettings settings);

struct VaultSettings {
  std::string address;
  std::string token;
  std::string name_space;  ///< empty: none
  std::string mount = "secret";
};
/// Each secret is at a path of its own, as its member "value" ("value_hex" if it is no text).
std::unique_ptr<SecretStore> vault_kv2(VaultSettings settings);

/// From AWS_REGION (or AWS_DEFAULT_REGION), AWS_ENDPOINT_URL_SECRETS_MANAGER and credentials; from
/// VAULT_ADDR, VAULT_TOKEN and VAULT_NAMESPACE. Throw Error(usage) for what is missing.
AwsSecretsSettings aws_secrets_from_environment();
VaultSettings vault_from_environment();

/// Throws Error(refused) for a URL over which others could listen.
void refuse_open_line(const std::string& url);

/// Can a JSON document hold this as a string, or must it be spelt out?
bool is_text(const std::string& value);

}  // namespace holdfast::service
