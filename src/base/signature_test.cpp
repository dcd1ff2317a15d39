#include "base/signature.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::base {
namespace {

TEST(Signature, is_accepted_for_the_same_bytes_and_key_only) {
  const SigningKey key = SigningKey::generate();
  const VerifyingKey check(key.public_pem(), "a test");
  const Bytes signature = key.sign(view("a drill passed"));
  EXPECT_TRUE(check.verifies(view("a drill passed"), signature));
  EXPECT_FALSE(check.verifies(view("a drill failed"), signature));
  EXPECT_FALSE(check.verifies(view("a drill passed"), View(signature).subspan(1)));
  Bytes other = signature;
  other[7] ^= 1;
  EXPECT_FALSE(check.verifies(view("a drill passed"), other));
  const VerifyingKey stranger(SigningKey::generate().public_pem(), "a test");
  EXPECT_FALSE(stranger.verifies(view("a drill passed"), signature));
}

TEST(Signature, keys_survive_being_written) {
  const SigningKey key = SigningKey::generate();
  const SigningKey again(key.private_pem(), "a test");
  EXPECT_EQ(again.sign(view("x")), key.sign(view("x")));
  EXPECT_EQ(again.public_pem(), key.public_pem());
  EXPECT_THROW(SigningKey("no key", "a test"), Error);
  EXPECT_THROW(SigningKey(key.public_pem(), "a test"), Error);
  EXPECT_THROW(VerifyingKey(key.private_pem(), "a test"), Error);
}

TEST(Signature, a_key_file_is_made_once_and_for_its_owner_alone) {
  const TemporaryDirectory place("holdfast-key");
  const fs::path file = place.path() / "new" / "drill.key";
  const std::string made = signing_key_in(file).public_pem();
  EXPECT_EQ(signing_key_in(file).public_pem(), made);
  EXPECT_EQ(status_of(file)->st_mode & 0777U, 0600U);
}

}  // namespace
}  // namespace holdfast::base
