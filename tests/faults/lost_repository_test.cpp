// A repository that goes away under those who work with it (a mount that is gone, a directory that
// was renamed): nobody makes another one where it was, and it is whole when it comes back.

#include "harness/receiver.h"

namespace holdfast::tests {
namespace {

using base::Code;

/// A repository that is somewhere else for a while.
class Away {
 public:
  explicit Away(const Place& place) : place_(place) {
    fs::rename(place_.repository(), place_.path("away"));
  }
  ~Away() {
    if (!back_) come_back();
  }
  Away(const Away&) = delete;
  Away& operator=(const Away&) = delete;

  bool grew_again() const { return fs::exists(place_.repository()); }
  void come_back() {
    back_ = true;
    fs::remove_all(place_.repository());
    fs::rename(place_.path("away"), place_.repository());
  }

 private:
  const Place& place_;
  bool back_ = false;
};

class LostRepository : public ReceiveTest {
 protected:
  void expect_hint_without_init(const std::string& said) const {
    EXPECT_NE(said.find("is the disk mounted"), std::string::npos) << said;
    EXPECT_EQ(said.find("holdfast init"), std::string::npos) << said;
  }
};

TEST_F(LostRepository, does_not_grow_again_under_wal_receive_which_goes_on_when_it_is_back) {
  const auto receiver = receive();
  insert("before");
  await_all_stored(*source_);
  Away away(place_);
  insert("while it is away");
  source_->sql("SELECT pg_switch_wal()");
  eventually("the receiver notices",
             [&] { return receiver->said().find("is not there any more") != std::string::npos; });
  EXPECT_EQ(receiver->said().find("holdfast init"), std::string::npos) << receiver->said();
  EXPECT_FALSE(away.grew_again());
  away.come_back();
  await_all_stored(*source_);  // by the same receiver
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "before while it is away");
}

TEST_F(LostRepository, is_not_made_anew_by_any_command_and_nobody_is_told_to_init) {
  const Away away(place_);
  for (const auto& line :
       std::vector<std::vector<std::string>>{{"backup"},
                                             {"list"},
                                             {"verify"},
                                             {"expire", "--yes"},
                                             {"status"},
                                             {"snapshot"},
                                             {"drill"},
                                             {"wal", "push", "pg_wal/000000010000000000000001"}}) {
    const Result refused = place_.holdfast(line);
    EXPECT_NE(refused.status, 0) << line.front();
    EXPECT_EQ((refused.output + refused.errors).find("holdfast init"), std::string::npos)
        << refused.output << refused.errors;
  }
  expect_hint_without_init(place_.holdfast({"list"}).errors);
  EXPECT_FALSE(away.grew_again());
}

class Migration : public testing::Test {
 protected:
  nlohmann::json journal() const {
    return place_.must({"migrate", "--list", "--json"}).json().at("migrations");
  }
  Place place_;
  std::unique_ptr<Cluster> source_{place_.cluster()};
};

TEST_F(Migration, whose_repository_goes_away_makes_no_other_and_its_end_is_said_to_be_unknown) {
  const std::string away = place_.path("away").string();
  const Result failed =
      place_.holdfast({"migrate", "--", "sh", "-c",
                       fmt::format("mv {} {}; exit 4", place_.repository().string(), away)});
  EXPECT_EQ(failed.status, 4) << failed.errors;
  EXPECT_NE(failed.errors.find("could not record how the migration ended"), std::string::npos)
      << failed.errors;
  EXPECT_FALSE(fs::exists(place_.repository()));
  fs::remove_all(place_.repository());
  fs::rename(away, place_.repository());
  EXPECT_EQ(journal().at(0).at("state"), "end unknown");
}

TEST_F(Migration, that_dies_before_it_is_in_the_journal_leaves_no_long_pin) {
  // Archiving stands still, so that it waits behind the snapshot.
  source_->sql("ALTER SYSTEM SET archive_command = 'false'");
  source_->sql("SELECT pg_reload_conf()");
  Running migration(place_, {"migrate", "--", "true"});
  const auto pins = [&] {
    nlohmann::json all = nlohmann::json::array();
    const nlohmann::json listed = place_.must({"list", "--json"}).json();
    for (const auto& backup : listed.at("backups")) {
      for (const auto& pin : backup.at("pins")) all.push_back(pin);
    }
    return all;
  };
  eventually("the snapshot is pinned", [&] {
    if (migration.over()) throw std::runtime_error("it ended: " + migration.said());
    return !pins().empty();
  });
  migration.signal(SIGKILL);
  migration.wait();
  EXPECT_TRUE(journal().empty());
  const auto until = base::from_iso(pins().at(0).at("until").get<std::string>());
  EXPECT_LT(until, base::now() + std::chrono::days(4));
}

TEST_F(Migration, that_was_begun_pins_its_snapshot_for_long_and_once) {
  place_.must({"migrate", "--", "true"});
  const nlohmann::json listed = place_.must({"list", "--json"}).json();
  const nlohmann::json& backup = listed.at("backups").at(0);
  ASSERT_EQ(backup.at("pins").size(), 1U);
  EXPECT_GT(base::from_iso(backup.at("pins").at(0).at("until").get<std::string>()),
            base::now() + std::chrono::days(20));
}

}  // namespace
}  // namespace holdfast::tests
