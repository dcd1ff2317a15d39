#include "operations/environment_text.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace holdfast::operations {
namespace {

using Pairs = EnvironmentVariables;

std::string value_of(const std::string& written) {
  const Pairs read = parse_environment("X=" + written + "\n", "a file");
  EXPECT_EQ(read.size(), 1U) << written;
  return read.empty() ? "" : read.front().second;
}

TEST(EnvironmentText, is_read_as_compose_reads_it) {
  EXPECT_EQ(value_of("plain"), "plain");
  EXPECT_EQ(value_of("  spaces kept inside  "), "spaces kept inside");
  EXPECT_EQ(value_of("value # a comment"), "value");
  EXPECT_EQ(value_of("value#none"), "value#none");
  EXPECT_EQ(value_of("a=b=c"), "a=b=c");
  EXPECT_EQ(value_of("pa$$word"), "pa$word");
  EXPECT_EQ(value_of("'$literal # \"x\" \\n'"), "$literal # \"x\" \\n");
  EXPECT_EQ(value_of("'it\\'s'"), "it's");
  EXPECT_EQ(value_of("\"two\\nlines \\$x \\\"q\\\" \\\\\" # comment"), "two\nlines $x \"q\" \\");
  EXPECT_EQ(value_of("'over\nlines'"), "over\nlines");
  EXPECT_EQ(value_of(""), "");
}

TEST(EnvironmentText, knows_lines_that_are_no_value) {
  const Pairs read = parse_environment(
      "\xEF\xBB\xBF# comment\n\nexport A=1\r\n  B : 2\nFROM_THE_SHELL\nA=3\n", "a file");
  EXPECT_EQ(read, (Pairs{{"B", "2"}, {"A", "3"}}));
}

TEST(EnvironmentText, refuses_what_depends_on_where_it_is_read_without_saying_it) {
  for (const std::string text : {"X=$CANARY", "X=\"${CANARY}\"", "X='CANARY", "X=\"CANARY",
                                 "CANARY CANARY=1", "X=\"CANARY\\0101\""}) {
    try {
      parse_environment("\n" + text, "a file");
      ADD_FAILURE() << text;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::configuration);
      EXPECT_EQ(error.message().find("CANARY"), std::string::npos) << error.message();
      EXPECT_NE(error.message().find("a file, line 2"), std::string::npos) << error.message();
    }
  }
}

TEST(EnvironmentText, that_was_written_is_read_back_whatever_is_in_it) {
  const std::string letters = "ab $'\"\\\n\r\t#={}`!0\xC3\xA4";
  std::mt19937 random(6);
  Pairs variables;
  for (int i = 0; i < 5000; ++i) {
    std::string value;
    for (auto length = random() % 12; length > 0; --length) {
      value += letters[random() % letters.size()];
    }
    variables.emplace_back("V" + std::to_string(i), value);
  }
  EXPECT_EQ(parse_environment(write_environment(variables), "a file"), variables);
}

}  // namespace
}  // namespace holdfast::operations
