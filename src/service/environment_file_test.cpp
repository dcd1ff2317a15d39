#include "service/environment_file.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <random>

#include "base/testing.h"

namespace holdfast::service {
namespace {

using base::Code;
using base::testing::code_of;

std::optional<std::string> value_in(const std::string& text, const std::string& name = "A") {
  std::optional<std::string> value;
  for (const auto& each : parse_environment(text)) {
    if (each.name == name) value = each.value;
  }
  return value;
}

const std::vector<std::string> hostile = {
    "",
    "postgres://api:p$a$$ss@db:5432/app?sslmode=require",
    "it's",
    "\"double\"",
    "both ' and \"",
    "$HOME ${HOME} $$ ${A:-x}",
    "# no comment # at all",
    "  spaces around  ",
    "back\\slash",
    "ends in \\",
    "ends in two \\\\",
    "\\'",
    "\\n is no line break",
    "two\nlines",
    "dos\r\nlines",
    "tab\there",
    "ümläut 雪 🐘",
    "'",
    "''",
    "'quoted'",
    "a=b:c",
    "\\\"$\n'\\",
};

TEST(EnvironmentFile, hostile_values_are_read_back_as_they_were_written) {
  const std::string before = "# head\nexport A=old # why\nB=2\n";
  for (const std::string& value : hostile) {
    SCOPED_TRACE(value);
    const std::string text = with_variable(before, "A", value);
    EXPECT_EQ(value_in(text), value);
    EXPECT_TRUE(text.starts_with("# head\nexport A="));
    EXPECT_TRUE(text.ends_with(" # why\nB=2\n")) << text;
    EXPECT_EQ(value_in(with_variable("", "A", value)), value);
  }
}

TEST(EnvironmentFile, writes_what_compose_takes_literally) {
  EXPECT_EQ(with_variable("", "A", "p$a#s'x"), "A='p$a#s\\'x'\n");
  EXPECT_EQ(with_variable("", "A", "a\n\"$\\"), "A=\"a\\n\\\"\\$\\\\\"\n");
}

TEST(EnvironmentFile, knows_the_rules_of_compose) {
  EXPECT_EQ(value_in("A=b # c\n"), "b");
  EXPECT_EQ(value_in("A=b#c\n"), "b#c");
  EXPECT_EQ(value_in("A = b c \n"), "b c");
  EXPECT_EQ(value_in("A: b\n"), "b");
  EXPECT_EQ(value_in("export A=b"), "b");
  EXPECT_EQ(value_in("A=\n"), "");
  EXPECT_EQ(value_in("A\n"), std::nullopt);
  EXPECT_EQ(value_in("\xef\xbb\xbf"
                     "A=b\r\nB=c\r\n"),
            "b");
  EXPECT_EQ(value_in("A=1\nA=2\n"), "2");
  EXPECT_EQ(value_in("A='$x'\n"), "$x");
  EXPECT_EQ(value_in("A='a\nb' # c\nB=1\n"), "a\nb");
  EXPECT_EQ(value_in("A='it\\'s'\n"), "it's");
  EXPECT_EQ(value_in("A='a\\nb'\n"), "a\\nb");
  EXPECT_EQ(value_in("A=\"a\\tb\"\n"), "a\tb");
  EXPECT_EQ(value_in("B=x\nA=$B-${B}-$$\n"), "x-x-$");
  EXPECT_EQ(value_in("B=\nA=\"${B:-y}\"\n"), "y");
  EXPECT_EQ(value_in("A=\"\\$B\"\n"), "$B");
  EXPECT_EQ(value_in("A=$UNKNOWN\n"), std::nullopt);
}

TEST(EnvironmentFile, changes_the_duplicate_that_counts_and_nothing_else) {
  EXPECT_EQ(with_variable("A=1\nB=2\nA=3\n#A=4\n", "A", "x"), "A=1\nB=2\nA='x'\n#A=4\n");
  EXPECT_EQ(with_variable("B=2\r\nA=1\r\nC=3", "A", "x"), "B=2\r\nA='x'\r\nC=3");
  EXPECT_EQ(with_variable("B=2\r\nC=3", "A", "x"), "B=2\r\nC=3\r\nA='x'\r\n");
  EXPECT_EQ(with_variable("A\nB=2", "A", "x"), "A='x'\nB=2");
  EXPECT_EQ(with_variable("B='A=1\nA=2'\n", "A", "x"), "B='A=1\nA=2'\nA='x'\n");
}

TEST(EnvironmentFile, what_it_cannot_understand_is_refused_without_showing_it) {
  for (const std::string text : {"A=1\nSECRET='x", "A=1\nmy SECRET=1\n", "A=1\n=SECRET\n"}) {
    try {
      parse_environment(text);
      ADD_FAILURE() << text;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), Code::configuration);
      EXPECT_NE(error.message().find("line 2"), std::string::npos) << error.message();
      EXPECT_EQ((error.message() + error.hint()).find("SECRET"), std::string::npos);
    }
  }
  EXPECT_EQ(code_of([] { with_variable("", "A", std::string("x\0y", 3)); }), Code::usage);
  EXPECT_EQ(code_of([] { with_variable("", "A B", "x"); }), Code::usage);
}

TEST(EnvironmentFile, any_bytes_can_be_parsed_or_are_refused_and_any_value_written) {
  base::testing::Random random(20261123);
  const std::string alphabet = "AB=:'\"\\$#{}- \t\n\r\xc3\xa4";
  const auto some = [&](std::size_t most) {
    std::string text;
    for (std::size_t left = random.below(most); left > 0; --left) {
      text += alphabet[random.below(alphabet.size())];
    }
    return text;
  };
  std::size_t understood = 0;
  for (std::size_t round = base::testing::fuzz_iterations(20000); round > 0; --round) {
    const std::string text = some(24);
    const std::string value = some(12);
    SCOPED_TRACE(text);
    try {
      const auto before = parse_environment(text);
      const std::string after = with_variable(text, "A", value);
      EXPECT_EQ(value_in(after), value);
      ++understood;
      // All but the one value is there byte for byte.
      const auto found =
          std::ranges::find(before.rbegin(), before.rend(), "A", &EnvironmentVariable::name);
      if (found == before.rend()) {
        EXPECT_TRUE(after.starts_with(text));
      } else {
        EXPECT_TRUE(after.starts_with(text.substr(0, found->value_begin)));
        EXPECT_TRUE(after.ends_with(text.substr(found->value_end)));
      }
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), Code::configuration) << error.message();
    }
  }
  EXPECT_GT(understood, 100U);
}

class EnvironmentFileOnDisk : public ::testing::Test {
 protected:
  void write(std::string_view text, mode_t mode) const {
    base::replace_file(file_, base::view(text), mode);
  }
  std::string text(const base::fs::path& file) const {
    return std::string(base::text(base::read_existing_file(file)));
  }
  base::TemporaryDirectory directory_{"holdfast-env"};
  base::fs::path file_ = directory_.path() / "api.env";
  base::fs::path previous_ = directory_.path() / "api.env.previous";
};

TEST_F(EnvironmentFileOnDisk, keeps_mode_owner_links_and_the_previous_and_can_be_undone) {
  write("A=1\n", 0640);
  const bool root = ::geteuid() == 0;
  if (root) {
    ASSERT_EQ(::chown(file_.c_str(), 1234, 4321), 0);
  }
  const base::fs::path link = directory_.path() / "link";
  base::fs::create_symlink("api.env", link);
  write_variable(link, "A", "new $value");
  EXPECT_EQ(read_variable(link, "A"), "new $value");
  EXPECT_TRUE(base::fs::is_symlink(link));
  EXPECT_EQ(text(previous_), "A=1\n");
  for (const auto& file : {file_, previous_}) {
    const auto status = base::status_of(file);
    EXPECT_EQ(status->st_mode & 07777U, 0640U);
    if (!root) continue;
    EXPECT_EQ(status->st_uid, 1234U);
    EXPECT_EQ(status->st_gid, 4321U);
  }
  write_variable(link, "A", "new $value");
  EXPECT_EQ(text(previous_), "A=1\n") << "what is so already is not written";
  undo_write(link);
  EXPECT_EQ(text(file_), "A=1\n");
  EXPECT_EQ(base::directory_names(directory_.path())->size(), 3U) << "a temporary file is left";
}

TEST_F(EnvironmentFileOnDisk, a_missing_file_is_not_made) {
  EXPECT_EQ(code_of([&] { write_variable(file_, "A", "x"); }), Code::not_found);
  EXPECT_EQ(code_of([&] { undo_write(file_); }), Code::not_found);
  EXPECT_FALSE(base::fs::exists(file_));
}

TEST(EnvironmentValues, are_those_that_count) {
  EXPECT_EQ(environment_values(
                "\xEF\xBB\xBF# comment\n\nexport A=1\r\n  B : 2\nFROM_THE_SHELL\nA=3\n", "a file"),
            (EnvironmentValues{{"B", "2"}, {"A", "3"}}));
}

TEST(EnvironmentValues, that_depend_on_where_they_are_read_are_refused_without_saying_them) {
  for (const std::string text : {"X=$CANARY", "X=\"${CANARY}\"", "X='CANARY", "X=\"CANARY",
                                 "CANARY CANARY=1", "X=\"CANARY\\0101\""}) {
    try {
      environment_values("\n" + text, "a file");
      ADD_FAILURE() << text;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::configuration);
      EXPECT_EQ(error.message().find("CANARY"), std::string::npos) << error.message();
      EXPECT_NE(error.message().find("line 2 of a file"), std::string::npos) << error.message();
    }
  }
}

TEST(EnvironmentValues, that_were_written_are_read_back_whatever_is_in_them) {
  const std::string letters = "ab $'\"\\\n\r\t#={}`!0\xC3\xA4";
  std::mt19937 random(6);
  EnvironmentValues values;
  for (int i = 0; i < 500; ++i) {
    std::string value;
    for (auto length = random() % 12; length > 0; --length) {
      value += letters[random() % letters.size()];
    }
    values.emplace_back("V" + std::to_string(i), value);
  }
  EXPECT_EQ(environment_values(environment_text(values), "a file"), values);
}

}  // namespace
}  // namespace holdfast::service
