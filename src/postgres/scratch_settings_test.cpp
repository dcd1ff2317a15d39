#include "postgres/scratch_settings.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/process.h"
#include "postgres/session.h"

namespace holdfast::postgres {
namespace {

TEST(ScratchSettings, are_known_to_the_version_and_steer_recovery_as_it_was_written) {
  const std::set<std::string> known = {"restore_command", "recovery_target", "recovery_target_time",
                                       "recovery_target_lsn", "ssl"};
  const Settings settings =
      scratch_settings(known, "restore_command = 'ours'\nrecovery_target_lsn = '1/2'\n", false);
  const Settings wanted = {{"ssl", "off"},
                           {"restore_command", "ours"},
                           {"recovery_target", ""},
                           {"recovery_target_lsn", ""},
                           {"recovery_target_time", ""},
                           {"recovery_target_lsn", "1/2"}};
  EXPECT_EQ(settings, wanted);
}

/// Whoever adds a setting to PostgreSQL that takes a text makes this fail until it is thought
/// about.
TEST(ScratchSettings, name_every_setting_that_takes_a_text) {
  std::vector<Installation> all;
  for (int major = 13; major <= 30; ++major) {
    if (auto found = find_installation(major)) all.push_back(*std::move(found));
  }
  ASSERT_FALSE(all.empty());
  const auto notes = scratch_setting_notes();
  for (const Installation& installation : all) {
    const base::TemporaryDirectory place("settings");
    ASSERT_EQ(::chmod(place.path().c_str(), 0755), 0);
    make_cluster(installation, place.path() / "data");
    Server server(installation, place.path() / "data");
    Session session(server.connection());
    const std::set<std::string> known = known_settings(installation);
    for (const Row& row : session.query("SELECT name, vartype FROM pg_settings "
                                        "WHERE context <> 'internal'")) {
      const std::string name = row.at(0).value_or("");
      const auto note = std::ranges::find(notes, std::string_view(name), &SettingNote::name);
      if (row.at(1) == "string") {
        EXPECT_NE(note, notes.end()) << "is it harmless? " << name << " of " << installation.major;
      }
      if (note != notes.end() && note->why.empty()) {
        EXPECT_TRUE(known.contains(name)) << name << " of " << installation.major;
      }
    }
  }
}

}  // namespace
}  // namespace holdfast::postgres
