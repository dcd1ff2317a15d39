#include "postgres/recovery_settings.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

TEST(RecoverySettings, quotes_what_a_configuration_file_would_misread) {
  EXPECT_EQ(quote_setting("plain"), "'plain'");
  EXPECT_EQ(quote_setting(""), "''");
  EXPECT_EQ(quote_setting("it's"), "'it''s'");
  EXPECT_EQ(quote_setting("a\\b"), "'a\\\\b'");
}

TEST(RecoverySettings, reads_back_every_value_that_it_wrote) {
  for (const char* value : {"", "x", "it's", "'", "''", "\\", "\\'", "a # b", "two\nlines", "a=b",
                            " spaces ", "\\n", "\xc3\xa4", "/usr/bin/x \"%f\" '%p'"}) {
    const std::string text = edit_settings("", {}, {{"restore_command", value}}, "by a test");
    EXPECT_EQ(find_setting(text, "restore_command"), value);
  }
}

TEST(RecoverySettings, finds_what_the_server_would_find) {
  const auto find = [](std::string_view text) { return find_setting(text, "port"); };
  EXPECT_EQ(find("port = 5433"), "5433");
  EXPECT_EQ(find("port 5433"), "5433");
  EXPECT_EQ(find("  PORT=5433 # yes"), "5433");
  EXPECT_EQ(find("port = '5433'# yes"), "5433");
  EXPECT_EQ(find("port=5433#5434"), "5433");
  EXPECT_EQ(find("port = 1\nport = 2\r\n"), "2");
  EXPECT_EQ(find("port = 'a''b\\'c\\\\d\\101\\n'"), "a'b'c\\dA\n");
}

TEST(RecoverySettings, finds_nothing_where_the_server_would_not) {
  for (const char* text : {"", "# port = 1", "xport = 1", "port_x = 1", "port.x = 1", "port",
                           "port =", "port = # 1", "port = 'open", "port = 'open\\", "= 1"}) {
    EXPECT_FALSE(find_setting(text, "port")) << text;
  }
}

TEST(RecoverySettings, edit_replaces_and_removes_and_leaves_the_rest_alone) {
  const std::string before =
      "# written by ALTER SYSTEM\n"
      "work_mem = '64MB'\n"
      "RESTORE_COMMAND = 'old'\n"
      "  primary_conninfo='host=a'\n"
      "# restore_command = 'in a comment'\n"
      "include_if_exists = 'more.conf'\n"
      "restore_commander = 1\n"
      "shared_buffers = 1GB";
  EXPECT_EQ(edit_settings(before, {"primary_conninfo"}, {{"restore_command", "new"}}, "Holdfast"),
            "# written by ALTER SYSTEM\n"
            "work_mem = '64MB'\n"
            "# restore_command = 'in a comment'\n"
            "include_if_exists = 'more.conf'\n"
            "restore_commander = 1\n"
            "shared_buffers = 1GB\n"
            "# Holdfast\n"
            "restore_command = 'new'\n");
}

TEST(RecoverySettings, edit_removes_a_setting_even_if_its_value_is_broken) {
  EXPECT_EQ(edit_settings("restore_command = 'open\nx = 1\n", {"restore_command"}, {}, "c"),
            "x = 1\n");
}

TEST(RecoverySettings, edit_lets_no_comment_become_a_setting) {
  EXPECT_EQ(edit_settings("", {}, {{"a", "1"}}, "one\nport = 2"), "# one\n# port = 2\na = '1'\n");
}

// RS6, WF6: archive_mode on or a left-over target would tie the copy to the place it came from.
TEST(RecoverySettings, names_everything_that_steers_recovery_or_archiving_RS6) {
  const auto& names = recovery_setting_names();
  for (const char* name :
       {"recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name",
        "recovery_target_lsn", "recovery_target_action", "recovery_target_inclusive",
        "recovery_target_timeline", "restore_command", "archive_cleanup_command",
        "recovery_end_command", "primary_conninfo", "primary_slot_name", "promote_trigger_file",
        "recovery_min_apply_delay", "archive_mode", "archive_command", "archive_library"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

}  // namespace
}  // namespace holdfast::postgres
