#pragma once

// Signature Version 4 of Amazon Web Services, for requests whose URL has no query.

#include <string>
#include <string_view>

#include "base/http.h"
#include "base/time.h"

namespace holdfast::service {

struct AwsCredentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  ///< empty: none
};

/// From AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. Throws Error(key) if they
/// are not there.
AwsCredentials aws_credentials_from_environment();

/// Adds the headers that sign it; all headers that it has are signed.
void sign_for_aws(base::HttpRequest& request, const AwsCredentials& credentials,
                  std::string_view region, std::string_view service, base::Timestamp now);

}  // namespace holdfast::service
