#include "postgres/configuration_file.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

TEST(ConfigurationFile, lines_together_are_the_text_and_say_what_the_server_reads) {
  const std::string text =
      "# port = 1\n\nInclude_Dir 'conf.d'\n  port=5433 # yes\nbroken = 'open\ninclude='a''b'";
  std::string all;
  const auto lines = configuration_lines(text);
  for (const ConfigurationLine& line : lines) all += line.text;
  EXPECT_EQ(all, text);
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(lines[0].name, "");
  EXPECT_EQ(lines[2].name, "include_dir");
  EXPECT_EQ(lines[2].value, "conf.d");
  EXPECT_EQ(lines[3].value, "5433");
  EXPECT_EQ(lines[4].name, "broken");
  EXPECT_FALSE(lines[4].value);
  EXPECT_EQ(lines[5].value, "a'b");
}

TEST(ConfigurationFile, knows_which_files_of_a_directory_are_included) {
  EXPECT_TRUE(is_included_name("a.conf"));
  for (const char* name : {".conf", ".a.conf", "a.conf~", "conf", "README"}) {
    EXPECT_FALSE(is_included_name(name)) << name;
  }
}

TEST(ConfigurationFile, finds_what_access_files_refer_to_and_where) {
  const std::string text =
      "# @comment\n"
      "local all @admins,bob,@\"more names\" peer # @no\n"
      "local \"@quoted\" all peer\n"
      "include_dir \"dir with blank\"\n"
      "include_if_exists x.conf\n"
      "host all all \\\n  @lists 10.0.0.1/32 md5\n";
  std::vector<std::string> found;
  std::string changed;
  std::size_t at = 0;
  for (const AccessReference& each : access_references(text)) {
    found.push_back(each.path);
    changed += text.substr(at, each.begin - at) + to_string(each, "new");
    at = each.end;
  }
  EXPECT_EQ(found, (std::vector<std::string>{"admins", "more names", "dir with blank", "x.conf",
                                             "lists"}));
  EXPECT_EQ(changed + text.substr(at),
            "# @comment\n"
            "local all @\"new\",bob,@\"new\" peer # @no\n"
            "local \"@quoted\" all peer\n"
            "include_dir \"new\"\n"
            "include_if_exists \"new\"\n"
            "host all all \\\n  @\"new\" 10.0.0.1/32 md5\n");
}

TEST(ConfigurationFile, ends_with_every_text) {
  for (const char* text : {"", "\n", "\\", "\"", "a\\\n", "@", "\"open\n", "#", ",,\n,", "a \\"}) {
    access_references(text);
    configuration_lines(text);
  }
}

}  // namespace
}  // namespace holdfast::postgres
