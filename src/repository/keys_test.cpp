#include "repository/keys.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using base::Secret;
using testing::code_of;

const std::string repository_id = "0193abcdef0123456789abcdef012345";

KeySource passphrase(std::string text) {
  return {std::move(text), {}, {}};
}
KeySource command(std::string text) {
  return {{}, {}, std::move(text)};
}

class Keys : public ::testing::Test {
 protected:
  std::string add(const KeySource& source) { return add_key(store_, repository_id, key_, source); }
  Secret unlock_by(const KeySource& source) {
    return unlock(store_, repository_id, fingerprint(key_, repository_id), source);
  }
  bool opens(const KeySource& source) {
    return base::same_bytes(unlock_by(source).bytes(), key_.bytes());
  }
  Code refusal(const KeySource& source) {
    return code_of([&] { unlock_by(source); });
  }

  Secret key_{base::testing::Random(1).bytes(32)};
  std::shared_ptr<testing::Objects> objects_ = std::make_shared<testing::Objects>();
  testing::MemoryStore store_{objects_};
  testing::KeyFile file_;
  testing::KeyFile other_file_;
};

TEST_F(Keys, open_by_the_passphrase_and_no_other) {
  add(passphrase("correct horse"));
  EXPECT_TRUE(opens(passphrase("correct horse")));
  EXPECT_EQ(refusal(passphrase("correct horse ")), Code::key);
  EXPECT_EQ(refusal(file_.source()), Code::key);
}

TEST_F(Keys, open_by_the_key_file_and_no_other) {
  add(file_.source());
  EXPECT_TRUE(opens(file_.source()));
  EXPECT_EQ(refusal(other_file_.source()), Code::key);
  EXPECT_EQ(refusal(passphrase(key_text(file_.key()))), Code::key);
  EXPECT_EQ(refusal({{}, file_.path() + ".missing", {}}), Code::key);
}

TEST_F(Keys, open_by_a_command_which_is_asked_once_EK7) {
  const base::TemporaryDirectory directory("keys");
  const std::string log = (directory.path() / "calls").string();
  const KeySource source =
      command("echo called >> '" + log + "'; echo; cat '" + file_.path() + "'");
  add(other_file_.source());
  add(source);
  EXPECT_TRUE(opens(source));
  EXPECT_EQ(base::text(*base::read_file(log)), "called\ncalled\n");  // by add, and by unlock
  // A file that holds what the command prints is the same way in.
  EXPECT_TRUE(opens(file_.source()));
}

TEST_F(Keys, do_not_open_by_a_command_that_fails) {
  add(file_.source());
  EXPECT_EQ(refusal(command("cat '" + file_.path() + "'; exit 1")), Code::key);
  EXPECT_EQ(refusal(command("echo no key")), Code::key);
  EXPECT_EQ(refusal(command("no-such-program-anywhere")), Code::key);
}

TEST_F(Keys, are_many_ways_to_one_key) {
  const std::string first = add(file_.source());
  add(other_file_.source());
  EXPECT_TRUE(opens(file_.source()));
  EXPECT_TRUE(opens(other_file_.source()));
  ASSERT_TRUE(store_.remove(first));
  EXPECT_EQ(refusal(file_.source()), Code::key);
  EXPECT_TRUE(opens(other_file_.source()));
}

TEST_F(Keys, of_the_kit_open_even_if_all_others_are_lost_OS9) {
  const base::TemporaryDirectory directory("keys");
  const base::fs::path kit = directory.path() / "kit";
  base::replace_file(kit, base::view("\n  " + key_text(key_) + " \r\n"));
  EXPECT_TRUE(opens({{}, kit.string(), {}}));
  EXPECT_TRUE(opens(command("cat '" + kit.string() + "'")));
  // Nor is keys/ looked at: it may be what fails.
  objects_->before = [](std::string_view call, const std::string&) {
    base::fail(Code::io, "could not {}", call);
  };
  EXPECT_TRUE(opens({{}, kit.string(), {}}));
}

TEST_F(Keys, of_another_repository_do_not_open_this_one) {
  add_key(store_, "another repository", key_, file_.source());
  EXPECT_EQ(refusal(file_.source()), Code::key);
  add_key(store_, repository_id, other_file_.key(), file_.source());
  EXPECT_EQ(refusal(file_.source()), Code::key);
}

TEST_F(Keys, are_needed_for_what_is_encrypted_EK2) {
  EXPECT_EQ(refusal({}), Code::key);
}

TEST_F(Keys, damaged_in_one_way_do_not_close_the_others) {
  objects_->all["keys/0"] = base::copy(base::view("not JSON"));
  objects_->all["keys/1"] = base::copy(base::view("[]"));
  objects_->all["keys/2"] = base::copy(base::view("{}"));
  objects_->all["keys/3"] = base::copy(base::view(R"({"kind": "key_file", "salt": "xx"})"));
  objects_->all["keys/4"] = base::copy(base::view(R"({"kind": "key_file", "salt": 7})"));
  const std::string unreadable = add(other_file_.source());
  objects_->before = [&](std::string_view, const std::string& name) {
    if (name == unreadable) base::fail(Code::io, "could not read");
  };
  EXPECT_EQ(refusal(file_.source()), Code::io);  // it may have been that one (EK6)
  add(file_.source());
  EXPECT_TRUE(opens(file_.source()));
}

TEST_F(Keys, changed_by_a_bit_do_not_open) {
  const std::string name = add(file_.source());
  const Bytes whole = objects_->at(name);
  base::testing::Random random(2);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(500); ++i) {
    objects_->at(name) = base::testing::mutated(whole, random);
    // What is not sealed, as white space, may change; the key is the right one or there is none.
    if (testing::succeeds_or(Code::key, [&] { unlock_by(file_.source()); })) {
      EXPECT_TRUE(opens(file_.source()));
    }
  }
}

TEST_F(Keys, ask_for_no_more_memory_than_we_would_give) {
  const std::string name = add(passphrase("x"));
  for (const int log_n : {0, 9, 23, 63, 64, -1}) {
    auto wrapped = nlohmann::json::parse(base::text(objects_->at(name)));
    wrapped["log_n"] = log_n;
    objects_->at(name) = base::copy(base::view(wrapped.dump()));
    EXPECT_EQ(refusal(passphrase("x")), Code::key) << log_n;
  }
}

TEST_F(Keys, are_nowhere_stored_bare_EK10) {
  add(file_.source());
  add(passphrase("correct horse"));
  for (const std::string& name : objects_->names_with("")) {
    const std::string stored(base::text(objects_->at(name)));
    for (const Secret& secret : {key_, file_.key()}) {
      EXPECT_EQ(stored.find(key_text(secret)), std::string::npos);
      EXPECT_EQ(stored.find(base::text(secret.bytes())), std::string::npos);
    }
    EXPECT_EQ(stored.find("correct horse"), std::string::npos);
  }
}

TEST_F(Keys, are_not_told_in_errors_EK10) {
  const base::TemporaryDirectory directory("keys");
  const base::fs::path spoilt = directory.path() / "key";
  const std::string secret = key_text(other_file_.key());
  const auto tells = [&](const KeySource& source) {
    try {
      unlock_by(source);
    } catch (const base::Error& error) {
      const std::string all = error.message() + error.hint();
      return all.find(secret.substr(0, 16)) != std::string::npos ||
             all.find("horse") != std::string::npos;
    }
    return true;
  };
  add(file_.source());
  for (const std::string& text : {secret, secret + "0", secret.substr(1), secret.substr(1) + "x"}) {
    base::replace_file(spoilt, base::view(text));
    EXPECT_FALSE(tells({{}, spoilt.string(), {}}));
    EXPECT_FALSE(tells(command("cat '" + spoilt.string() + "'")));
    EXPECT_FALSE(tells(command("cat '" + spoilt.string() + "' >&2; exit 1")));
  }
  EXPECT_FALSE(tells(passphrase("wrong horse")));
}

TEST(KeyText, reads_back_what_it_wrote_and_nothing_else) {
  const Secret key(base::testing::Random(1).bytes(32));
  const std::string text = key_text(key);
  EXPECT_TRUE(base::same_bytes(parse_key_text(" \t" + text + "\r\n", "test").bytes(), key.bytes()));
  for (const std::string& wrong :
       std::initializer_list<std::string>{"", text.substr(2), text + "00", text.substr(1) + "g",
                                          text.substr(0, 32) + " " + text.substr(33)}) {
    EXPECT_EQ(code_of([&] { parse_key_text(wrong, "test"); }), Code::key);
  }
}

TEST(KeyFile, is_private_and_never_overwritten) {
  const base::TemporaryDirectory directory("keys");
  const std::string path = (directory.path() / "new/key").string();
  const Secret key = make_key_file(path);
  EXPECT_EQ(base::status_of(path)->st_mode & 0777, 0600U);
  EXPECT_EQ(base::text(*base::read_file(path)), key_text(key) + "\n");
  EXPECT_THROW(make_key_file(path), base::Error);
  EXPECT_EQ(base::text(*base::read_file(path)), key_text(key) + "\n");
}

TEST(Fingerprint, tells_keys_and_repositories_apart) {
  const Secret one(Bytes(32, 1));
  const Secret two(Bytes(32, 2));
  EXPECT_EQ(fingerprint(one, "a"), fingerprint(one, "a"));
  EXPECT_NE(fingerprint(one, "a"), fingerprint(two, "a"));
  EXPECT_NE(fingerprint(one, "a"), fingerprint(one, "b"));
}

}  // namespace
}  // namespace holdfast::repository
