// Promotions: several timelines in one repository, and which of them a restore follows.

#include "base/error.h"
#include "harness/witness.h"
#include "postgres/control_file.h"

namespace holdfast::tests {
namespace {

/// Rows that were written on each timeline.
std::string rows(const Cluster& cluster) {
  return cluster.sql("SELECT string_agg(v, ' ' ORDER BY id) FROM t");
}

class Timelines : public testing::Test {
 protected:
  Timelines() : first_(place_.cluster()) {
    first_->sql("CREATE TABLE t (id serial, v text)");
    place_.must({"backup"});
    first_->sql("INSERT INTO t (v) VALUES ('one')");
    place_.archive_all(*first_);
  }

  /// Restores to the end of WAL, promotes, and archives into the same repository from then on.
  std::unique_ptr<Cluster> next(std::string_view name) {
    place_.must({"restore", place_.path(name).string()});
    auto cluster = adopt(first_->installation(), place_.path(name));
    cluster->start(archiving(place_));
    cluster->server().await_recovery_end(std::chrono::seconds(60));
    return cluster;
  }

  void write(Cluster& cluster, const std::string& value) {
    cluster.sql("INSERT INTO t (v) VALUES ('" + value + "')");
    place_.archive_all(cluster);
  }

  bool archived(const std::string& name) const {
    return fs::exists(object_of(place_, *first_, "wal/" + name));
  }

  Place place_;
  std::unique_ptr<Cluster> first_;
};

TEST_F(Timelines, a_promoted_restore_archives_again_after_doctor_and_is_followed_from_then_on) {
  {
    // As a user does it: restore, start, doctor --fix, restart.
    const auto restored = place_.restored(*first_, "second");
    EXPECT_EQ(restored->sql("SHOW archive_mode"), "off");
    point_configuration_at(place_, *restored);
    const Result fix = place_.holdfast({"doctor", "--fix"});
    EXPECT_NE(fix.output.find("restart"), std::string::npos) << fix.output << fix.errors;
  }
  const auto second = adopt(first_->installation(), place_.path("second"));
  second->start();
  point_configuration_at(place_, *second);
  EXPECT_EQ(second->sql("SHOW archive_mode"), "on");
  write(*second, "two");
  EXPECT_TRUE(archived("00000002.history"));
  EXPECT_EQ(place_.must({"doctor"}).status, 0);

  place_.must({"backup"});
  write(*second, "three");
  const auto latest = place_.restored(*second, "latest");
  EXPECT_EQ(rows(*latest), "one two three");

  const auto old = place_.restored(*second, "old", {"--timeline", "1"});
  EXPECT_EQ(rows(*old), "one");
}

TEST_F(Timelines, the_newest_timeline_is_followed_through_the_ones_before_from_the_oldest_backup) {
  const auto second = next("second");
  write(*second, "two");
  const auto third = next("third");
  write(*third, "three");
  EXPECT_TRUE(archived("00000003.history"));
  // What was written on timeline 2 after timeline 3 left it belongs to another history.
  write(*second, "lost");
  const auto latest = place_.restored(*first_, "latest");
  EXPECT_EQ(rows(*latest), "one two three");
  const auto other = place_.restored(*first_, "other", {"--timeline", "2"});
  EXPECT_EQ(rows(*other), "one two lost");
}

TEST_F(Timelines, B32_WF2_a_missing_history_is_named_and_nothing_older_is_recovered_instead) {
  const auto second = next("second");
  write(*second, "two");
  const auto third = next("third");
  write(*third, "three");
  const fs::path history = object_of(place_, *first_, "wal/00000002.history");
  fs::rename(history, place_.path("history"));

  const Result result = place_.holdfast({"restore", place_.path("latest").string()});
  EXPECT_EQ(result.status, 20) << result.errors;
  EXPECT_NE(result.errors.find("00000002.history"), std::string::npos) << result.errors;
  EXPECT_FALSE(fs::exists(place_.path("latest")));
  const auto timelines = place_.must({"list", "--json"}).json().at("timelines");
  EXPECT_TRUE(std::ranges::any_of(timelines, [](const auto& each) {
    return each.at("timeline") == 2 && each.at("history_missing") == true;
  })) << timelines;

  fs::rename(place_.path("history"), history);
  EXPECT_EQ(rows(*place_.restored(*first_, "latest")), "one two three");
}

TEST_F(Timelines, B32_a_history_lost_after_the_restore_stops_the_server) {
  const auto second = next("second");
  write(*second, "two");
  place_.must({"restore", place_.path("latest").string()});
  fs::remove(object_of(place_, *first_, "wal/00000002.history"));
  const auto latest = adopt(first_->installation(), place_.path("latest"));
  EXPECT_THROW(
      {
        latest->start();
        latest->server().await_recovery_end(std::chrono::seconds(60));
      },
      base::Error);
}

TEST_F(Timelines, WF13_a_backup_that_a_timeline_does_not_contain_is_refused_with_both_lsns) {
  const auto second = next("second");
  write(*second, "two");
  // Timeline 1 goes on meanwhile; a backup of that is not on timeline 2.
  first_->sql("INSERT INTO t (v) VALUES ('elsewhere')");
  const std::string stray = place_.must({"backup", "--json"}).json().at("id");
  place_.archive_all(*first_);
  const Result result =
      place_.holdfast({"restore", place_.path("x").string(), "--backup", stray, "--timeline", "2"});
  EXPECT_EQ(result.status, 14) << result.errors;
  EXPECT_NE(result.errors.find("timeline 2"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("--timeline 1"), std::string::npos) << result.errors;
  const std::string lsn = place_.must({"list", "--json"}).json().at("backups")[1].at("stop_lsn");
  EXPECT_NE(result.errors.find(lsn), std::string::npos) << result.errors;
  EXPECT_FALSE(fs::exists(place_.path("x")));
  const auto latest = place_.restored(*first_, "latest");
  EXPECT_EQ(rows(*latest), "one two");
}

TEST_F(Timelines, an_unknown_timeline_is_refused) {
  const Result result = place_.holdfast({"restore", place_.path("x").string(), "--timeline", "7"});
  EXPECT_EQ(result.status, 20) << result.errors;
  EXPECT_FALSE(fs::exists(place_.path("x")));
}

/// Lets a stopped cluster leave its timeline for `timeline`, as if so many promotions had been
/// tried: a server takes the first number above those whose histories it finds.
void promote_to(Cluster& cluster, int timeline) {
  const int before = static_cast<int>(
      postgres::read_control_file(cluster.data_directory()).control.timeline.value);
  std::vector<fs::path> skipped;
  for (int each = before + 1; each < timeline; ++each) {
    skipped.push_back(cluster.data_directory() / "pg_wal" / fmt::format("{:08X}.history", each));
    overwrite(skipped.back(), "1\t0/1000000\tnever was\n");
  }
  overwrite(cluster.data_directory() / "recovery.signal", "");
  // PostgreSQL insists on a restore_command; this one knows nothing.
  cluster.start({{"restore_command", "false"},
                 {"recovery_target_timeline", "current"},
                 {"archive_mode", "off"}});
  cluster.server().await_recovery_end(std::chrono::seconds(60));
  cluster.stop();
  for (const fs::path& each : skipped) fs::remove(each);
}

TEST_F(Timelines, B28_WF15_timelines_above_nine_are_hexadecimal_everywhere) {
  first_->stop();
  for (const int timeline : {10, 16}) {
    promote_to(*first_, timeline);
    const std::string history = fmt::format("{:08X}.history", timeline);
    ASSERT_TRUE(fs::exists(first_->data_directory() / "pg_wal" / history)) << history;
    first_->start();
    point_configuration_at(place_, *first_);
    write(*first_, fmt::format("on{}", timeline));
    EXPECT_TRUE(archived(history)) << history;
    place_.must({"wal", "fetch", history, place_.path("fetched").string()});
    EXPECT_EQ(text_of(place_.path("fetched")),
              text_of(first_->data_directory() / "pg_wal" / history));
    if (timeline == 16) break;
    first_->stop();
  }
  const auto listed = place_.must({"list", "--json"}).json();
  EXPECT_EQ(listed.at("recovery_windows")[0].at("timeline"), 16);
  EXPECT_EQ(rows(*place_.restored(*first_, "oldest")), "one on10 on16");
  EXPECT_EQ(rows(*place_.restored(*first_, "ten", {"--timeline", "10"})), "one on10");

  const auto backup = place_.must({"backup", "--json"}).json();
  EXPECT_EQ(backup.at("timeline"), 16);
  write(*first_, "last");
  EXPECT_EQ(rows(*place_.restored(*first_, "newest")), "one on10 on16 last");
  place_.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
