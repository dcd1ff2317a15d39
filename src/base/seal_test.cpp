#include "base/seal.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

/// A key of fewer than 32 bytes: HMAC fills it up with zeros just like this.
Secret padded(View bytes) {
  Bytes all = copy(bytes);
  all.resize(32);
  return Secret(all);
}

Bytes hmac(const Secret& key, View bytes) {
  const auto digest = hmac_sha256(key, bytes);
  return {digest.begin(), digest.end()};
}

/// HKDF by its definition, for any length of input key: what derive() has to agree with.
Bytes hkdf(View salt, View input, View purpose) {
  const Secret extracted(hmac(padded(salt), input));
  Bytes expand = copy(purpose);
  expand.push_back(1);
  return hmac(extracted, expand);
}

Secret counting_key() {
  Bytes bytes(32);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::uint8_t>(i);
  return Secret(bytes);
}

TEST(Hmac, agrees_with_rfc_4231) {
  EXPECT_EQ(to_hex(hmac(padded(Bytes(20, 0x0b)), view("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac(padded(view("Jefe")), view("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Sha256, agrees_with_fips_180) {
  EXPECT_EQ(to_hex(sha256(view("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 pieces;
  pieces.add(view("a"));
  pieces.add({});
  pieces.add(view("bc"));
  EXPECT_EQ(pieces.finish(), sha256(view("abc")));
}

TEST(Derive, is_hkdf_as_in_rfc_5869) {
  // Cases 1 and 3, of which derive() would give the first 32 bytes, pin the definition above.
  ASSERT_EQ(to_hex(hkdf(from_hex("000102030405060708090a0b0c"), Bytes(22, 0x0b),
                        from_hex("f0f1f2f3f4f5f6f7f8f9"))),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
  ASSERT_EQ(to_hex(hkdf({}, Bytes(22, 0x0b), {})),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
  const Secret key = counting_key();
  for (const std::string_view purpose : {"", "holdfast mac", "holdfast container 1 packs/00"}) {
    for (const std::size_t size : {0U, 16U, 32U}) {
      const Bytes salt = testing::Random(1).bytes(size);
      EXPECT_EQ(to_hex(derive(key, salt, purpose).bytes()),
                to_hex(hkdf(salt, key.bytes(), view(purpose))));
    }
  }
}

TEST(Stretch, is_scrypt_as_in_rfc_7914) {
  EXPECT_EQ(to_hex(stretch("pleaseletmein", view("SodiumChloride"), 14).bytes()),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

TEST(Sealer, agrees_with_the_vectors_of_gcm) {
  // Test cases 13 and 14 of the GCM specification: key, nonce and text of zeros.
  Sealer sealer{Secret(Bytes(32))};
  Bytes tag(seal_tag_size);
  sealer.seal(0, {}, {}, tag);
  EXPECT_EQ(to_hex(tag), "530f8afbc74536b9a963b4f1c4cb738b");
  Bytes text(16);
  sealer.seal(0, {}, text, tag);
  EXPECT_EQ(to_hex(text), "cea7403d4d606b6e074ec5d3baf39d18");
  EXPECT_EQ(to_hex(tag), "d0d1c8a799996bf0265b98b5d48ab919");
}

TEST(Sealer, puts_the_number_into_the_last_bytes_of_the_nonce) {
  // Made by another implementation with the nonce 000000000102030405060708.
  Bytes text = copy(view("some plaintext"));
  Bytes tag(seal_tag_size);
  Sealer(counting_key()).seal(0x0102030405060708, view("associated"), text, tag);
  EXPECT_EQ(to_hex(text), "773e086bfd9165ff6af1898a6613");
  EXPECT_EQ(to_hex(tag), "318a69e225188f80d3cc9ecbbbe1e3a0");
}

struct Sealed {
  Bytes text = copy(view("the bytes of a page"));
  Bytes tag = Bytes(seal_tag_size);
  Sealed() { Sealer(counting_key()).seal(7, view("where"), text, tag); }
};

TEST(Sealer, opens_only_what_was_sealed) {
  const Sealed sealed;
  Sealer sealer(counting_key());
  const auto opens = [&](std::uint64_t number, std::string_view associated, Bytes text, View tag) {
    return sealer.open(number, view(associated), text, tag);
  };
  EXPECT_TRUE(opens(7, "where", sealed.text, sealed.tag));
  EXPECT_FALSE(opens(8, "where", sealed.text, sealed.tag));
  EXPECT_FALSE(opens(7, "there", sealed.text, sealed.tag));
  EXPECT_FALSE(opens(7, "", sealed.text, sealed.tag));
  EXPECT_FALSE(opens(7, "where", {}, sealed.tag));
  EXPECT_FALSE(opens(7, "where", sealed.text, View(sealed.tag).first(15)));
  EXPECT_FALSE(opens(7, "where", sealed.text, Bytes(40)));
  for (std::size_t bit = 0; bit < sealed.text.size() * 8; ++bit) {
    Bytes text = sealed.text;
    text[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_FALSE(opens(7, "where", text, sealed.tag));
  }
  for (std::size_t bit = 0; bit < seal_tag_size * 8; ++bit) {
    Bytes tag = sealed.tag;
    tag[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_FALSE(opens(7, "where", sealed.text, tag));
  }
  // A failure leaves nothing behind that harms the next one.
  EXPECT_TRUE(opens(7, "where", sealed.text, sealed.tag));
}

TEST(Sealer, does_not_open_under_another_key) {
  Sealed sealed;
  EXPECT_FALSE(Sealer(Secret(Bytes(32))).open(7, view("where"), sealed.text, sealed.tag));
}

TEST(Sealer, works_on_after_it_was_moved) {
  Sealed sealed;
  Sealer first(counting_key());
  Sealer second(std::move(first));
  EXPECT_TRUE(second.open(7, view("where"), sealed.text, sealed.tag));
  EXPECT_EQ(text(sealed.text), "the bytes of a page");
}

TEST(Secret, has_exactly_32_bytes) {
  for (const std::size_t size : {0U, 16U, 31U, 33U, 64U}) {
    try {
      const Secret secret{Bytes(size)};
      ADD_FAILURE() << size;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::key);
    }
  }
}

TEST(Random, gives_other_bytes_each_time) {
  EXPECT_EQ(random_bytes(20).size(), 20U);
  EXPECT_NE(random_bytes(20), random_bytes(20));
  EXPECT_FALSE(same_bytes(random_secret().bytes(), random_secret().bytes()));
}

TEST(SameBytes, compares_length_and_content) {
  EXPECT_TRUE(same_bytes({}, {}));
  EXPECT_TRUE(same_bytes(view("ab"), view("ab")));
  EXPECT_FALSE(same_bytes(view("ab"), view("ac")));
  EXPECT_FALSE(same_bytes(view("ab"), view("abc")));
}

}  // namespace
}  // namespace holdfast::base
