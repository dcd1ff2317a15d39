#include "postgres/backup_label.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::postgres {
namespace {

constexpr std::string_view real_label =
    "START WAL LOCATION: 16/B3000028 (file 0000000A00000016000000B3)\n"
    "CHECKPOINT LOCATION: 16/B3000060\n"
    "BACKUP METHOD: streamed\n"
    "BACKUP FROM: primary\n"
    "START TIME: 2026-11-23 08:30:00 UTC\n"
    "LABEL: nightly\n"
    "START TIMELINE: 10\n";

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result(text);
  result.replace(result.find(from), from.size(), to);
  return result;
}

bool is_corrupt(std::string_view text) {
  try {
    parse_backup_label(text);
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

bool map_is_corrupt(std::string_view text) {
  try {
    parse_tablespace_map(text);
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

// WF15: the file name has the timeline in hexadecimal, START TIMELINE in decimal.
TEST(BackupLabel, tells_where_the_backup_began_WF15) {
  const BackupLabel label = parse_backup_label(real_label);
  EXPECT_EQ(to_string(label.start), "16/B3000028");
  EXPECT_EQ(label.start_file, "0000000A00000016000000B3");
  EXPECT_EQ(to_string(label.checkpoint), "16/B3000060");
  EXPECT_EQ(label.timeline.value, 10U);
  EXPECT_FALSE(label.from_standby);
  EXPECT_EQ(label.label, "nightly");
}

TEST(BackupLabel, knows_a_standby) {
  EXPECT_TRUE(parse_backup_label(replaced(real_label, "primary", "standby")).from_standby);
}

TEST(BackupLabel, may_have_lines_that_later_versions_added) {
  const std::string label =
      std::string(real_label) + "INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n";
  EXPECT_EQ(parse_backup_label(label).timeline.value, 10U);
}

TEST(BackupLabel, is_not_misled_by_a_label_that_looks_like_other_lines) {
  const BackupLabel label = parse_backup_label(
      replaced(real_label, "nightly",
               "x\nSTART TIMELINE: 9\nCHECKPOINT LOCATION: 0/28\nBACKUP FROM: standby"));
  EXPECT_EQ(label.timeline.value, 10U);
  EXPECT_EQ(to_string(label.checkpoint), "16/B3000060");
  EXPECT_FALSE(label.from_standby);
}

TEST(BackupLabel, lacks_no_line_that_must_be_there) {
  for (const char* name :
       {"START WAL LOCATION", "CHECKPOINT LOCATION", "BACKUP FROM", "LABEL", "START TIMELINE"}) {
    EXPECT_TRUE(is_corrupt(replaced(real_label, name, "ANOTHER"))) << name;
  }
  EXPECT_TRUE(is_corrupt(""));
}

TEST(BackupLabel, is_refused_when_cut_anywhere) {
  for (std::size_t size = 0; size < real_label.size(); ++size) {
    EXPECT_TRUE(is_corrupt(real_label.substr(0, size))) << size;
  }
}

TEST(BackupLabel, is_refused_when_its_values_cannot_be) {
  EXPECT_TRUE(is_corrupt(replaced(real_label, "16/B3000028", "16-B3000028")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "16/B3000060", "0/0")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "primary", "nowhere")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "TIMELINE: 10", "TIMELINE: ten")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "TIMELINE: 10", "TIMELINE: 16")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "0000000A00000016000000B3", "postgresql.conf")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "B3)", "B3")));
  EXPECT_TRUE(is_corrupt(replaced(real_label, "primary\n", "primary\r\n")));
}

TEST(TablespaceMap, lists_tablespaces) {
  const auto tablespaces = parse_tablespace_map("16390 /srv/fast disk\n16391 /srv/a=b\n");
  ASSERT_EQ(tablespaces.size(), 2U);
  EXPECT_EQ(tablespaces[0].oid, 16390U);
  EXPECT_EQ(tablespaces[0].location, "/srv/fast disk");
  EXPECT_EQ(tablespaces[1].location, "/srv/a=b");
  EXPECT_TRUE(parse_tablespace_map("").empty());
}

// B21: names may hold anything.
TEST(TablespaceMap, keeps_every_character_of_a_location_B21) {
  for (const char* location : {"/a\\b", "/a\nb", "/a\rb", "/a\\\nb\\", "/ lead", "/x]=[ ", "\\"}) {
    const std::string text = write_tablespace_map({{1663, location}, {1664, "/plain"}});
    const auto back = parse_tablespace_map(text);
    ASSERT_EQ(back.size(), 2U) << text;
    EXPECT_EQ(back[0].location, location);
    EXPECT_EQ(back[1].location, "/plain");
  }
  EXPECT_EQ(write_tablespace_map({{5, "/a\\b\nc"}}), "5 /a\\\\b\\\nc\n");
}

TEST(TablespaceMap, takes_a_lone_backslash_as_postgres_13_wrote_it) {
  EXPECT_EQ(parse_tablespace_map("5 /a\\b\n")[0].location, "/a\\b");
}

TEST(TablespaceMap, is_refused_when_cut_or_malformed) {
  for (const char* text : {"5 /a", "5\n", "5 \n", " /a\n", "x /a\n", "0 /a\n", "5x /a\n", "\n",
                           "99999999999 /a\n", "5 /a\\\n"}) {
    EXPECT_TRUE(map_is_corrupt(text)) << text;
  }
}

TEST(BackupLabel, of_an_incremental_backup_becomes_that_of_a_whole_one) {
  const std::string label(real_label);
  EXPECT_EQ(whole_backup_label(label), label);
  EXPECT_EQ(whole_backup_label(label + "INCREMENTAL FROM LSN: 16/A0000028\n"
                                       "INCREMENTAL FROM TLI: 10\n"),
            label);
  EXPECT_EQ(whole_backup_label(label + "without an end"), label + "without an end");
  EXPECT_EQ(whole_backup_label(""), "");
}

}  // namespace
}  // namespace holdfast::postgres
