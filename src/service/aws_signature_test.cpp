#include "service/aws_signature.h"

#include <gtest/gtest.h>

namespace holdfast::service {
namespace {

/// Amazon's own test suite: get-vanilla and post-vanilla.
TEST(AwsSignature, is_that_of_amazons_test_suite) {
  const AwsCredentials credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
  const auto now = base::from_iso("2015-08-30T12:36:00.000000Z");
  for (const auto& [method, signature] :
       {std::pair("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        std::pair("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")}) {
    base::HttpRequest request;
    request.method = method;
    request.url = "https://example.amazonaws.com/";
    sign_for_aws(request, credentials, "us-east-1", "service", now);
    EXPECT_EQ(request.headers.back().second,
              "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
              "SignedHeaders=host;x-amz-date, Signature=" +
                  std::string(signature));
  }
}

TEST(AwsSignature, covers_the_session_token_and_every_header) {
  base::HttpRequest request;
  request.method = "POST";
  request.url = "http://127.0.0.1:8080";
  request.headers = {{"X-Amz-Target", "a.B"}, {"Content-Type", "x"}};
  sign_for_aws(request, {"A", "B", "token"}, "eu-west-1", "secretsmanager", base::now());
  EXPECT_NE(request.headers.back().second.find(
                "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,"),
            std::string::npos)
      << request.headers.back().second;
}

}  // namespace
}  // namespace holdfast::service
