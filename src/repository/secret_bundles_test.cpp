#include "repository/secret_bundles.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Code;
using testing::code_of;

const base::Bytes sealed = base::copy(base::view("what age made"));

std::string text_of(const base::Bytes& bytes) {
  return std::string(base::text(bytes));
}

TEST(SecretBundles, are_given_back_as_they_were_stored) {
  testing::TestRepository test(true);
  const SecretBundles bundles(test.repository, "main");
  EXPECT_EQ(bundles.all(), std::vector<std::string>{});
  EXPECT_EQ(bundles.read("01"), std::nullopt);
  bundles.put("01", sealed, {{"created", "then"}});
  EXPECT_EQ(bundles.all(), std::vector<std::string>{"01"});
  EXPECT_EQ(bundles.sealed("01"), sealed);
  EXPECT_EQ(bundles.read("01")->at("created"), "then");
  EXPECT_EQ(code_of([&] { bundles.put("01", sealed, {}); }), Code::internal) << "never replaced";
}

TEST(SecretBundles, exist_only_once_their_description_does) {
  testing::TestRepository test(true);
  const SecretBundles bundles(test.repository, "main");
  test.objects->set(test.objects->before, [](std::string_view call, const std::string& name) {
    if (call == "commit" && name.ends_with(".json")) base::fail(Code::io, "killed");
  });
  EXPECT_EQ(code_of([&] { bundles.put("01", sealed, {}); }), Code::io);
  EXPECT_EQ(test.objects->names_with("secrets/01").size(), 1U);
  EXPECT_EQ(bundles.all(), std::vector<std::string>{});
  EXPECT_EQ(bundles.unfinished(), std::vector<std::string>{"01"});
  test.objects->set(test.objects->before, [](std::string_view, const std::string&) {});
  bundles.put("02", sealed, {});
  EXPECT_EQ(bundles.unfinished(), std::vector<std::string>{"01"});
}

TEST(SecretBundles, that_the_store_changed_are_not_committed) {
  testing::TestRepository test(true);
  const SecretBundles bundles(test.repository, "main");
  test.objects->set(test.objects->after, [&](std::string_view call, const std::string& name) {
    if (call == "commit" && name.ends_with(".age")) test.objects->at(name).front() ^= 1;
  });
  EXPECT_EQ(code_of([&] { bundles.put("01", sealed, {}); }), Code::corrupt);
  EXPECT_EQ(bundles.all(), std::vector<std::string>{});
}

TEST(SecretBundles, notice_what_was_changed_or_put_in_their_place) {
  testing::TestRepository test(true);
  const SecretBundles bundles(test.repository, "main");
  bundles.put("01", sealed, {{"n", 1}});
  bundles.put("02", base::copy(base::view("another one")), {{"n", 2}});
  const auto objects = test.objects->all;
  const std::string at = "clusters/main/secrets/";
  test.objects->all[at + "01.age"] = objects.at(at + "02.age");
  EXPECT_EQ(code_of([&] { bundles.sealed("01"); }), Code::corrupt);
  test.objects->all[at + "01.json"] = objects.at(at + "02.json");
  EXPECT_EQ(code_of([&] { bundles.sealed("01"); }), Code::corrupt);
  test.objects->all = objects;
  test.objects->all[at + "01.json"][4] ^= 1;
  EXPECT_EQ(code_of([&] { bundles.read("01"); }), Code::corrupt);
  test.objects->all = objects;
  test.objects->all.erase(at + "02.age");
  EXPECT_EQ(code_of([&] { bundles.sealed("02"); }), Code::corrupt);
  EXPECT_EQ(text_of(bundles.sealed("01")), "what age made");
}

/// The example of docs/format.md.
TEST(SecretBundles, of_format_2_are_read_for_ever_RC12) {
  testing::TestRepository test(true);
  const SecretBundles bundles(test.repository, "main");
  const std::string body =
      "{\n  \"bundle\": \"0193abcdef0123456789abcdef012345\",\n  \"bytes\": 13,\n"
      "  \"cluster\": \"main\",\n  \"created\": \"2026-11-23T08:30:00.000000Z\",\n"
      "  \"sha256\": \"" +
      base::to_hex(base::sha256(sealed)) + "\"";
  const std::string document =
      body + ",\n  \"check\": \"" + test.repository.mac("secrets", body) + "\"\n}\n";
  const std::string at = "clusters/main/secrets/0193abcdef0123456789abcdef012345";
  test.objects->all[at + ".age"] = sealed;
  test.objects->all[at + ".json"] = base::copy(base::view(document));
  EXPECT_EQ(bundles.sealed("0193abcdef0123456789abcdef012345"), sealed);
}

}  // namespace
}  // namespace holdfast::repository
