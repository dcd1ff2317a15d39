// A server that recovers through `wal fetch`: it gets to its target, or it stops. It never takes a
// fault for the end of WAL, promotes itself, and calls that a success.

#include "base/error.h"
#include "harness/witness.h"
#include "postgres/control_file.h"

namespace holdfast::tests {
namespace {

/// A cluster with rows in several archived segments, and a restore of it to latest, not started.
class Recovery : public testing::Test {
 protected:
  Recovery() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t (id int)");
    place_.must({"backup"});
    for (int id = 1; id <= 4; ++id) {
      source_->sql(fmt::format("INSERT INTO t VALUES ({})", id));
      segments_.push_back(finish_segment(place_, *source_));
    }
  }

  void restore() {
    place_.must({"restore", place_.path("restored").string()});
    restored_ = adopt(source_->installation(), place_.path("restored"));
    // Enough WAL to be consistent is at hand: a server that takes a fault for the end of the
    // archive could promote itself, and would, with rows missing.
    for (const auto& entry : fs::directory_iterator(source_->data_directory() / "pg_wal")) {
      const std::string name = entry.path().filename().string();
      if (name.size() != 24 || name > segments_[0]) continue;
      const fs::path copy = restored_->data_directory() / "pg_wal" / name;
      fs::copy_file(entry.path(), copy);
      place_.give_to_server_user(copy);
    }
  }

  /// Starts it and lets it recover; "" or the reason why it did not.
  std::string start() {
    try {
      restored_->start();
      restored_->server().await_recovery_end(std::chrono::seconds(60));
      return "";
    } catch (const base::Error& error) {
      return error.message();
    }
  }

  /// It ended, said why, and is still on timeline 1.
  void expect_refusal(const std::string& why) {
    const std::string reason = start();
    EXPECT_NE(reason.find(why), std::string::npos) << reason;
    EXPECT_NE(reason.find("FATAL"), std::string::npos) << reason;
    EXPECT_FALSE(fs::exists(restored_->data_directory() / "pg_wal/00000002.history"));
    const auto control = postgres::read_control_file(restored_->data_directory()).control;
    EXPECT_EQ(control.timeline.value, 1U);
    EXPECT_TRUE(fs::exists(restored_->data_directory() / "recovery.signal"));
  }

  void expect_all_rows() {
    ASSERT_EQ(start(), "");
    EXPECT_EQ(restored_->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t"), "1 2 3 4");
  }

  fs::path object(std::size_t number) const {
    return object_of(place_, *source_, "wal/00000001/" + segments_[number]);
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::unique_ptr<Cluster> restored_;
  std::vector<std::string> segments_;
};

TEST_F(Recovery, B31_WF1_stops_when_the_repository_is_away_and_succeeds_when_it_is_back) {
  restore();
  fs::rename(place_.repository(), place_.path("elsewhere"));
  expect_refusal("could not");
  fs::rename(place_.path("elsewhere"), place_.repository());
  expect_all_rows();
}

TEST_F(Recovery, B31_WF1_stops_without_the_key) {
  restore();
  fs::rename(place_.path("holdfast.key"), place_.path("lost.key"));
  expect_refusal("holdfast.key");
  fs::rename(place_.path("lost.key"), place_.path("holdfast.key"));
  expect_all_rows();
}

TEST_F(Recovery, B31_WF1_stops_at_a_corrupted_segment) {
  restore();
  flip_byte(object(2), fs::file_size(object(2)) / 2);
  expect_refusal(segments_[2]);
  flip_byte(object(2), fs::file_size(object(2)) / 2);
  expect_all_rows();
}

TEST_F(Recovery, B31_WF1_stops_when_its_configuration_is_gone) {
  restore();
  fs::rename(place_.configuration(), place_.path("lost.toml"));
  expect_refusal("holdfast.toml");
  fs::rename(place_.path("lost.toml"), place_.configuration());
  expect_all_rows();
}

TEST_F(Recovery, WF3_stops_at_a_hole_that_came_after_the_restore) {
  restore();
  fs::rename(object(1), place_.path("segment"));
  expect_refusal(segments_[1]);
  fs::rename(place_.path("segment"), object(1));
  expect_all_rows();
}

TEST_F(Recovery, WF3_a_hole_is_found_before_anything_is_written) {
  const std::string after_first = source_->sql("SELECT clock_timestamp()");
  fs::remove(object(2));
  const Result result = place_.holdfast({"restore", place_.path("restored").string()});
  EXPECT_EQ(result.status, 20) << result.errors;
  EXPECT_NE(result.errors.find(segments_[2]), std::string::npos) << result.errors;
  EXPECT_FALSE(fs::exists(place_.path("restored")));
  // A moment behind the hole cannot be reached either.
  const Result behind =
      place_.holdfast({"restore", place_.path("restored").string(), "--to", after_first});
  EXPECT_NE(behind.status, 0);
  EXPECT_FALSE(fs::exists(place_.path("restored")));
  const auto windows = place_.must({"list", "--json"}).json().at("recovery_windows");
  ASSERT_EQ(windows.size(), 1U);
  EXPECT_TRUE(windows[0].at("ends_in_hole"));
}

TEST_F(Recovery, WF3_WF10_before_a_hole_and_from_a_backup_behind_it_all_is_well) {
  source_->sql("INSERT INTO t VALUES (5)");
  source_->sql("SELECT pg_create_restore_point('before_the_hole')");
  finish_segment(place_, *source_);
  source_->sql("INSERT INTO t VALUES (6)");
  const std::string hole = finish_segment(place_, *source_);
  source_->sql("INSERT INTO t VALUES (7)");
  finish_segment(place_, *source_);
  fs::remove(object_of(place_, *source_, "wal/00000001/" + hole));
  {
    const auto before = place_.restored(*source_, "before", {"--to", "before_the_hole"});
    EXPECT_EQ(before->sql("SELECT max(id) FROM t"), "5");
  }
  place_.must({"backup"});
  source_->sql("INSERT INTO t VALUES (8)");
  place_.archive_all(*source_);
  const auto latest = place_.restored(*source_, "latest");
  EXPECT_EQ(latest->sql("SELECT max(id) FROM t"), "8");
}

TEST_F(Recovery, WF3_a_target_that_is_not_reached_before_a_hole_promotes_nothing) {
  source_->sql("SELECT pg_create_restore_point('behind')");
  finish_segment(place_, *source_);
  place_.must({"restore", place_.path("restored").string(), "--to", "behind"});
  restored_ = adopt(source_->installation(), place_.path("restored"));
  fs::rename(object(3), place_.path("segment"));
  expect_refusal("recovery ended before configured recovery target was reached");
  fs::rename(place_.path("segment"), object(3));
  expect_all_rows();
}

TEST_F(Recovery, WF11_a_whole_archive_has_no_hole_and_no_warning) {
  const Result list = place_.must({"list", "--json"});
  EXPECT_EQ(list.json().at("warnings"), nlohmann::json::array());
  EXPECT_FALSE(list.json().at("recovery_windows")[0].at("ends_in_hole"));
  const Result restore = place_.must({"restore", place_.path("restored").string()});
  // But for what the tests set on the server's command line.
  EXPECT_EQ(restore.errors.find("hole"), std::string::npos) << restore.errors;
  EXPECT_EQ(restore.errors.find("warning"), std::string::npos) << restore.errors;
}

TEST_F(Recovery, WF5_a_standby_waits_through_an_outage_and_goes_on) {
  restore();
  // Asked to follow for ever instead of recovering once; its own settings come last and win.
  fs::rename(place_.path("restored/recovery.signal"), place_.path("restored/standby.signal"));
  restored_->start({{"hot_standby", "on"}});
  eventually("the standby has replayed all",
             [&] { return restored_->sql("SELECT count(*) FROM t") == "4"; });
  fs::rename(place_.repository(), place_.path("elsewhere"));
  const auto log = [&] { return text_of(restored_->server().log_file()); };
  eventually("the outage is noticed",
             [&] { return log().find("holdfast: ") != std::string::npos; });
  EXPECT_TRUE(restored_->server().running());
  fs::rename(place_.path("elsewhere"), place_.repository());
  source_->sql("INSERT INTO t VALUES (5)");
  finish_segment(place_, *source_);
  eventually("the standby goes on",
             [&] { return restored_->sql("SELECT count(*) FROM t") == "5"; });
  EXPECT_EQ(restored_->sql("SELECT pg_is_in_recovery()"), "t");
}

}  // namespace
}  // namespace holdfast::tests
