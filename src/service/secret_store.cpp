#include "service/secret_store.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seal.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Code code_for(long status) {
  if (status == 401 || status == 403) return Code::permission;
  if (status == 429 || status >= 500) return Code::unreachable;
  return Code::io;
}

class SecretsManager : public SecretStore {
 public:
  explicit SecretsManager(AwsSecretsSettings settings) : settings_(std::move(settings)) {
    if (settings_.endpoint.empty()) {
      settings_.endpoint =
          fmt::format("https://secretsmanager.{}.amazonaws.com{}/", settings_.region,
                      settings_.region.starts_with("cn-") ? ".cn" : "");
    }
    refuse_open_line(settings_.endpoint);
  }

  std::optional<std::string> read(const std::string& name) override {
    version_.clear();
    const auto found = call("GetSecretValue", {{"SecretId", name}}, name);
    if (!found) return std::nullopt;
    version_ = found->value("VersionId", "");
    if (found->contains("SecretString")) return found->at("SecretString").get<std::string>();
    return std::string(base::text(from_base64(found->value("SecretBinary", ""))));
  }

  void write(const std::string& name, const std::string& value) override {
    // The name of the new version: the same value on top of the same version is the same request.
    read(name);
    const std::string content = fmt::format("{}\n{}\n{}", name, version_, value);
    json body = {
        {"ClientRequestToken", base::to_hex(base::sha256(base::view(content))).substr(0, 32)}};
    if (is_text(value)) {
      body["SecretString"] = value;
    } else {
      body["SecretBinary"] = to_base64(base::view(value));
    }
    body["SecretId"] = name;
    if (call("PutSecretValue", body, name)) return;
    body.erase("SecretId");
    body["Name"] = name;
    if (!call("CreateSecret", body, name)) {
      base::fail(Code::io, "could not create {} in AWS Secrets Manager", name);
    }
  }

 private:
  static base::Bytes from_base64(const std::string& text);
  static std::string to_base64(base::View bytes);

  /// nullopt: there is no such secret.
  std::optional<json> call(const std::string& operation, const json& body,
                           const std::string& name) {
    base::HttpRequest request;
    request.method = "POST";
    request.url = settings_.endpoint;
    request.headers = {{"Content-Type", "application/x-amz-json-1.1"},
                       {"X-Amz-Target", "secretsmanager." + operation}};
    request.body = body.dump();
    sign_for_aws(request, settings_.credentials, settings_.region, "secretsmanager", base::now());
    const base::HttpAnswer answer = http_.ask(request);
    if (!answer.status) {
      base::fail(Code::unreachable, "could not reach AWS Secrets Manager: {}", answer.why_not);
    }
    const json said = json::parse(answer.body, nullptr, false);
    if (*answer.status == 200 && said.is_object()) return said;
    std::string type = said.is_object() ? said.value("__type", "") : "";
    type.erase(0, type.find('#') + 1);  // "com.amazonaws...#ResourceNotFoundException"
    if (type == "ResourceNotFoundException") return std::nullopt;
    const bool denied = type == "AccessDeniedException" || type.find("Token") < type.size() ||
                        type.find("Signature") < type.size();
    throw Error(denied ? Code::permission : code_for(*answer.status),
                fmt::format("AWS Secrets Manager refused {} of {}: {} (HTTP status {})", operation,
                            name, type.empty() ? "no reason given" : type, *answer.status),
                type == "InvalidRequestException"
                    ? "it may be scheduled for deletion: `aws secretsmanager restore-secret`"
                    : "");
  }

  AwsSecretsSettings settings_;
  base::HttpClient http_;
  std::string version_;  ///< of what was read last
};

constexpr std::string_view digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string SecretsManager::to_base64(base::View bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = (group << 8) | (i + k < bytes.size() ? bytes[i + k] : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += i + k > bytes.size() ? '=' : digits[(group >> (18 - 6 * k)) & 63U];
    }
  }
  return text;
}

base::Bytes SecretsManager::from_base64(const std::string& text) {
  base::Bytes bytes;
  std::uint32_t group = 0;
  unsigned bits = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string_view::npos) continue;  // padding
    group = (group << 6) | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push_back(static_cast<std::uint8_t>(group >> bits));
  }
  return bytes;
}

class Vault : public SecretStore {
 public:
  explicit Vault(VaultSettings settings) : settings_(std::move(settings)) {
    while (settings_.address.ends_with('/')) settings_.address.pop_back();
    refuse_open_line(settings_.address);
  }

  std::optional<std::string> read(const std::string& name) override {
    version_ = 0;
    const base::HttpAnswer answer = ask("GET", name, {});
    const json said = json::parse(answer.body, nullptr, false);
    const json data = said.is_object() ? said.value("data", json()) : json();
    // A deleted version answers 404, too, but counts.
    if (data.is_object() && data.contains("metadata")) {
      version_ = data.at("metadata").value("version", 0U);
    }
    if (answer.status == 404) return std::nullopt;
    if (answer.status != 200) refuse("reading", name, answer);
    const json values = data.is_object() ? data.value("data", json()) : json();
    if (!values.is_object()) return std::nullopt;
    if (values.contains("value_hex")) {
      return std::string(base::text(base::from_hex(values.value("value_hex", ""))));
    }
    return values.value("value", "");
  }

  void write(const std::string& name, const std::string& value) override {
    read(name);
    const json data = is_text(value) ? json{{"value", value}}
                                     : json{{"value_hex", base::to_hex(base::view(value))}};
    const json body = {{"data", data}, {"options", {{"cas", version_}}}};
    const base::HttpAnswer answer = ask("POST", name, body.dump());
    if (answer.status != 200) refuse("writing", name, answer);
  }

 private:
  base::HttpAnswer ask(const std::string& method, const std::string& name, std::string body) {
    base::HttpRequest request;
    request.method = method;
    request.url = fmt::format("{}/v1/{}/data/{}", settings_.address, settings_.mount, name);
    request.headers = {{"X-Vault-Token", settings_.token}};
    if (!settings_.name_space.empty()) {
      request.headers.emplace_back("X-Vault-Namespace", settings_.name_space);
    }
    if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
    request.body = std::move(body);
    base::HttpAnswer answer = http_.ask(request);
    if (!answer.status) {
      base::fail(Code::unreachable, "could not reach Vault: {}", answer.why_not);
    }
    return answer;
  }

  /// Vault's own reasons ("permission denied") are not repeated: they could quote the request.
  [[noreturn]] void refuse(std::string_view what, const std::string& name,
                           const base::HttpAnswer& answer) const {
    if (answer.body.find("check-and-set") != std::string::npos) {
      throw Error(Code::busy, fmt::format("could not write {}: somebody else just did", name),
                  "look at what is there, and run it again");
    }
    throw Error(code_for(*answer.status),
                fmt::format("Vault refused {} {}/{} (HTTP status {})", what, settings_.mount, name,
                            *answer.status),
                "see that the token's policy allows it, and that the mount is of KV version 2");
  }

  VaultSettings settings_;
  base::HttpClient http_;
  std::uint32_t version_ = 0;
};

}  // namespace

bool is_text(const std::string& value) {
  try {
    static_cast<void>(json(value).dump());
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

void refuse_open_line(const std::string& url) {
  if (url.starts_with("https://")) return;
  for (const std::string_view here : {"http://127.0.0.1", "http://localhost", "http://[::1]"}) {
    if (!url.starts_with(here)) continue;
    const std::string_view rest = std::string_view(url).substr(here.size());
    if (rest.find('@') != std::string_view::npos) break;  // then what precedes it is no host
    if (rest.empty() || rest.front() == ':' || rest.front() == '/') return;
  }
  throw Error(Code::refused, fmt::format("cannot send secrets to \"{}\": it is not https", url),
              "use an address that begins with https://");
}

std::unique_ptr<SecretStore> aws_secrets_manager(AwsSecretsSettings settings) {
  return std::make_unique<SecretsManager>(std::move(settings));
}

std::unique_ptr<SecretStore> vault_kv2(VaultSettings settings) {
  return std::make_unique<Vault>(std::move(settings));
}

AwsSecretsSettings aws_secrets_from_environment() {
  AwsSecretsSettings settings;
  settings.credentials = aws_credentials_from_environment();
  settings.endpoint = variable("AWS_ENDPOINT_URL_SECRETS_MANAGER");
  settings.region = variable("AWS_REGION");
  if (settings.region.empty()) settings.region = variable("AWS_DEFAULT_REGION");
  if (settings.region.empty()) {
    throw Error(Code::usage, "cannot tell in which region of AWS the secrets are",
                "set AWS_REGION");
  }
  return settings;
}

VaultSettings vault_from_environment() {
  VaultSettings settings;
  settings.address = variable("VAULT_ADDR");
  settings.token = variable("VAULT_TOKEN");
  settings.name_space = variable("VAULT_NAMESPACE");
  if (settings.address.empty() || settings.token.empty()) {
    throw Error(Code::usage, "cannot tell where Vault is, or how to log in",
                "set VAULT_ADDR and VAULT_TOKEN");
  }
  return settings;
}

}  // namespace holdfast::service
