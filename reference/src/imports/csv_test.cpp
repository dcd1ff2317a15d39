#include "imports/csv.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <stdexcept>

#include "imports/utf8.h"

namespace reference::imports {
namespace {

namespace fs = std::filesystem;
using Fields = std::vector<std::string>;

class Csv : public ::testing::Test {
 protected:
  ~Csv() override { fs::remove(path_); }
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  /// Each record as its fields joined by |, a fault as "!".
  std::vector<std::string> read(Position from = {}) {
    std::vector<std::string> records;
    CsvFile file(path_, from);
    while (const auto record = file.next()) {
      std::string text = record->fault.empty() ? "" : "!";
      for (const std::string& field : record->fields) {
        text += (text.empty() || text == "!" ? "" : "|") + field;
      }
      records.push_back(text);
    }
    return records;
  }
  fs::path path_ = fs::temp_directory_path() / ("csv_test." + std::to_string(::getpid()));
};

TEST(CsvRecord, is_read_as_rfc_4180_says) {
  EXPECT_EQ(parse_record("a,b,c").fields, (Fields{"a", "b", "c"}));
  EXPECT_EQ(parse_record(R"("a, ""b""",c)").fields, (Fields{R"(a, "b")", "c"}));
  EXPECT_EQ(parse_record("a,,").fields, (Fields{"a", "", ""}));
  EXPECT_EQ(parse_record(R"("",b)").fields, (Fields{"", "b"}));
  EXPECT_EQ(parse_record("  a b , c ").fields, (Fields{"a b", "c"}));
  EXPECT_EQ(parse_record("größe,東京").fields, (Fields{"größe", "東京"}));
}

TEST(CsvRecord, has_a_fault_that_says_why_where_it_is_none) {
  EXPECT_NE(parse_record(R"("open,b)").fault.find("quote"), std::string::npos);
  EXPECT_NE(parse_record(R"(a"b,c)").fault.find("quote"), std::string::npos);
  EXPECT_NE(parse_record(R"("a"b,c)").fault.find("quote"), std::string::npos);
  EXPECT_NE(parse_record(std::string("a\0b", 3)).fault.find("NUL"), std::string::npos);
  EXPECT_NE(parse_record("a\rb").fault.find("line break"), std::string::npos);
  EXPECT_NE(parse_record("caf\xe9").fault.find("UTF-8"), std::string::npos);
  EXPECT_NE(parse_record(std::string(longest_line + 1, 'x')).fault.find("longer"),
            std::string::npos);
  EXPECT_NE(parse_record(std::string(most_fields, ',')).fault.find("fields"), std::string::npos);
  EXPECT_EQ(parse_record(std::string(most_fields - 1, ',')).fault, "");
  EXPECT_EQ(parse_record(std::string(longest_line, 'x')).fault, "");
}

TEST(Utf8, is_what_postgresql_takes) {
  for (const char* good :
       {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xff", "a\xc3"}) {
    EXPECT_FALSE(is_utf8(bad)) << bad;
  }
}

TEST_F(Csv, comes_line_by_line_with_any_of_the_usual_ends) {
  write("\xef\xbb\xbfname,city\r\n\r\nA,B\n   \nC,D");
  EXPECT_EQ(read(), (std::vector<std::string>{"name|city", "A|B", "C|D"}));
  write("");
  EXPECT_TRUE(read().empty());
  write("\xef\xbb\xbf");
  EXPECT_TRUE(read().empty());
}

TEST_F(Csv, loses_no_good_line_to_a_bad_one) {
  write("a,1\n\"open,2\nb,3\n" + std::string(1, '\0') + ",4\nc,5\n" + std::string(300'000, 'x') +
        "\nd,6\nfour\"teen,7\n\"e\",8\n");
  EXPECT_EQ(read(),
            (std::vector<std::string>{"a|1", "!", "b|3", "!", "c|5", "!", "d|6", "!", "e|8"}));
}

TEST_F(Csv, goes_on_where_it_was_left) {
  write("name\r\n\"a\"\n\nb\nlast");
  CsvFile file(path_);
  std::vector<std::pair<std::uint64_t, Position>> ends;
  std::vector<std::string> all;
  while (const auto record = file.next()) {
    all.push_back(record->fields.at(0));
    ends.emplace_back(file.position().line, file.position());
  }
  EXPECT_EQ(all, (Fields{"name", "a", "b", "last"}));
  EXPECT_EQ(ends.back().first, 5U) << "blank lines count";
  for (std::size_t at = 0; at < ends.size(); ++at) {
    const Fields rest(all.begin() + static_cast<std::ptrdiff_t>(at) + 1, all.end());
    EXPECT_EQ(read(ends[at].second), rest);
  }
}

TEST_F(Csv, that_is_gone_is_an_error_and_not_an_end) {
  EXPECT_THROW(CsvFile(path_ / "nothing"), std::runtime_error);
  CsvFile directory(fs::temp_directory_path());
  EXPECT_THROW(directory.next(), std::runtime_error);
}

/// Whatever the bytes: every line is counted, good lines among them come through unharmed, and
/// reading on from any position gives the same as reading through.
TEST_F(Csv, made_of_random_bytes_harms_no_line_but_its_own) {
  const char* rounds = std::getenv("HOLDFAST_FUZZ_ITERATIONS");
  std::mt19937 random(20261124);
  const std::string alphabet("\"\",,ab'= \t\r;\\\xef\xbb\xbf\xc3\x28\xf0\x9f\0", 22);
  for (int left = rounds != nullptr ? std::atoi(rounds) : 1000; left > 0; --left) {
    std::string text = "head\n";
    std::vector<std::string> good = {"head"};
    for (auto lines = random() % 20; lines > 0; --lines) {
      auto length = random() % 60;
      if (random() % 200 == 0) length = longest_line - 30 + random() % 60;
      for (; length > 0; --length) text += alphabet[random() % alphabet.size()];
      const std::string number = std::to_string(lines);
      text += "\ngood" + number + ",\"x\"\n";
      good.push_back("good" + number + "|x");
    }
    write(text);
    const std::vector<std::string> records = read();
    std::vector<std::string> found;
    for (const std::string& record : records) {
      if (record == "head" || record.starts_with("good")) found.push_back(record);
    }
    ASSERT_EQ(found, good);
    CsvFile file(path_);
    for (auto skip = random() % (records.size() + 1); skip > 0; --skip) file.next();
    const std::vector<std::string> rest = read(file.position());
    ASSERT_TRUE(std::equal(rest.rbegin(), rest.rend(), records.rbegin()));
  }
}

}  // namespace
}  // namespace reference::imports
