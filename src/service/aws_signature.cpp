#include "service/aws_signature.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/seal.h"

namespace holdfast::service {

namespace {

using base::Code;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string sha256_hex(std::string_view text) {
  return base::to_hex(base::sha256(base::view(text)));
}

/// "20150830T123600Z"
std::string stamp_of(base::Timestamp now) {
  std::string stamp = base::to_iso(now).substr(0, 19) + "Z";
  std::erase_if(stamp, [](char c) { return c == '-' || c == ':'; });
  return stamp;
}

}  // namespace

AwsCredentials aws_credentials_from_environment() {
  AwsCredentials found{variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"),
                       variable("AWS_SESSION_TOKEN")};
  if (found.access_key.empty() || found.secret_key.empty()) {
    throw base::Error(Code::key, "cannot talk to AWS: there are no credentials",
                      "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if "
                      "they are temporary");
  }
  return found;
}

void sign_for_aws(base::HttpRequest& request, const AwsCredentials& credentials,
                  std::string_view region, std::string_view service, base::Timestamp now) {
  const std::size_t host_at = request.url.find("://") + 3;
  const std::size_t path_at = std::min(request.url.find('/', host_at), request.url.size());
  const std::string stamp = stamp_of(now);
  request.headers.emplace_back("X-Amz-Date", stamp);
  if (!credentials.session_token.empty()) {
    request.headers.emplace_back("X-Amz-Security-Token", credentials.session_token);
  }
  std::map<std::string, std::string> headers = {
      {"host", request.url.substr(host_at, path_at - host_at)}};
  for (const auto& [name, value] : request.headers) {
    std::string lower = name;
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    headers[lower] = value;
  }
  std::string canonical;
  std::string names;
  for (const auto& [name, value] : headers) {
    canonical += fmt::format("{}:{}\n", name, value);
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string path = path_at == request.url.size() ? "/" : request.url.substr(path_at);
  const std::string whole = fmt::format("{}\n{}\n\n{}\n{}\n{}", request.method, path, canonical,
                                        names, sha256_hex(request.body));
  const std::string scope =
      fmt::format("{}/{}/{}/aws4_request", stamp.substr(0, 8), region, service);
  const std::string to_sign =
      fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", stamp, scope, sha256_hex(whole));
  const std::string secret = "AWS4" + credentials.secret_key;
  auto key = base::hmac_sha256(base::view(secret), base::view(stamp.substr(0, 8)));
  for (const std::string_view part :
       {region, service, std::string_view("aws4_request"), std::string_view(to_sign)}) {
    key = base::hmac_sha256(base::View(key), base::view(part));
  }
  request.headers.emplace_back(
      "Authorization",
      fmt::format("AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                  credentials.access_key, scope, names, base::to_hex(key)));
}

}  // namespace holdfast::service
