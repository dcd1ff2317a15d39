// Damage at rest in WAL, histories, keys and the objects that make a place a repository.

#include "faults.h"
#include "postgres/wal_segment.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

/// One backup on timeline 1; a promotion; one backup on timeline 2.
class DamagedArchive : public ::testing::Test {
 protected:
  DamagedArchive() : cluster_(place_.cluster()) {
    cluster_->sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 9000) g");
    place_.must({"backup"});
    place_.archive_all(*cluster_);
    cluster_->stop();
    const fs::path standby = cluster_->data_directory() / "standby.signal";
    base::replace_file(standby, {});
    place_.give_to_server_user(standby);
    start_again(place_, *cluster_);
    cluster_->sql("SELECT pg_promote()");
    cluster_->sql("INSERT INTO t VALUES (0)");
    place_.must({"backup"});
    place_.archive_all(*cluster_);
    cluster_->stop();
    const json listed = place_.must({"list", "--json"}).json();
    first_ = listed.at("backups").at(0).at("id");
    second_ = listed.at("backups").at(1).at("id");
    start_of_second_ =
        postgres::parse_lsn(listed["backups"][1].at("start_lsn").get<std::string>()).value();
  }

  fs::path segment_of_second() const {
    const postgres::SegmentSize size{16 << 20};
    const auto name = postgres::file_name(postgres::segment_at({2}, start_of_second_, size), size);
    return system_directory(place_) / "wal" / "00000002" / name;
  }
  fs::path history() const { return system_directory(place_) / "wal" / "00000002.history"; }
  fs::path target() const { return place_.path("restored"); }
  Result restore(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"restore", target().string()};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return place_.holdfast(all);
  }
  void expect_first_restores() {
    const Result restored = restore({"--backup", first_, "--timeline", "1", "--to", "immediate"});
    EXPECT_EQ(restored.status, 0) << restored.errors;
    fs::remove_all(target());
  }
  static bool is_restorable(const std::string& id, const Result& verified) {
    const json document = verified.json();
    for (const json& each : document.at("backups")) {
      if (each.at("id") == id) return each.at("restorable");
    }
    return false;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string first_;
  std::string second_;
  postgres::Lsn start_of_second_;
};

// TRAPS VE10: a segment that is listed is not yet one that can be replayed.
TEST_F(DamagedArchive, wal_that_is_corrupt_counts_as_wal_that_is_missing) {
  const fs::path segment = segment_of_second();
  const Damage damage(segment);
  for (const std::string how : {"flip", "cut", "remove"}) {
    SCOPED_TRACE(how);
    if (how == "flip") damage.flip(damage.size() / 2);
    if (how == "cut") damage.cut(damage.size() / 2);
    if (how == "remove") damage.remove();
    const Result verified = place_.holdfast({"verify", "--json"});
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.errors;
    EXPECT_NE(verified.output.find(segment.filename()), std::string::npos) << verified.output;
    EXPECT_FALSE(is_restorable(second_, verified)) << verified.output;
    EXPECT_TRUE(is_restorable(first_, verified)) << verified.output;
    const Result restored = restore({"--backup", second_, "--to", "immediate"});
    EXPECT_NE(restored.status, 0) << how;
    EXPECT_FALSE(restored.errors.find("hint:") == std::string::npos) << restored.errors;
    EXPECT_TRUE(is_empty_or_absent(target())) << how;
    fs::remove_all(target());
    expect_first_restores();
  }
}

TEST_F(DamagedArchive, list_survives_corrupt_wal_and_says_so) {
  for (const fs::path& segment : objects(place_, "wal")) {
    SCOPED_TRACE(segment.string());
    const Damage damage(segment);
    damage.flip(damage.size() / 2);
    const Result listed = place_.holdfast({"list"});
    EXPECT_NE(listed.output.find(first_), std::string::npos) << listed.errors;
    EXPECT_NE(listed.output.find(second_), std::string::npos) << listed.errors;
  }
}

TEST_F(DamagedArchive, a_history_that_is_hurt_or_gone_does_not_cost_the_timeline_before) {
  const Damage damage(history());
  for (const std::string how : {"flip", "cut", "remove"}) {
    SCOPED_TRACE(how);
    if (how == "flip") damage.flip(40);
    if (how == "cut") damage.cut(damage.size() / 2);
    if (how == "remove") damage.remove();
    const Result verified = place_.holdfast({"verify", "--json"});
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.errors;
    EXPECT_NE(verified.output.find("00000002.history"), std::string::npos) << verified.output;
    const Result listed = place_.holdfast({"list"});
    EXPECT_NE(listed.errors.find("00000002.history"), std::string::npos) << listed.errors;
    EXPECT_NE(listed.output.find(second_), std::string::npos) << listed.output;
    // Neither may end on timeline 1 as if there were no other one (TRAPS WF2).
    EXPECT_NE(restore({}).status, 0);
    EXPECT_TRUE(is_empty_or_absent(target()));
    expect_first_restores();
  }
}

TEST_F(DamagedArchive, without_its_marker_a_place_is_no_repository_and_does_not_become_a_new_one) {
  const Damage damage(place_.repository() / "holdfast.json");
  for (const std::string how : {"flip", "cut", "remove"}) {
    SCOPED_TRACE(how);
    if (how == "flip") damage.flip(damage.size() / 2);
    if (how == "cut") damage.cut(damage.size() / 2);
    if (how == "remove") damage.remove();
    for (const std::string command : {"list", "verify", "backup", "init"}) {
      SCOPED_TRACE(command);
      const auto objects_before = tree(place_.repository());
      const Result result = place_.holdfast({command});
      EXPECT_NE(result.status, 0);
      EXPECT_NE(result.status, status_of(Code::internal)) << result.errors;
      EXPECT_NE(result.errors.find("hint: "), std::string::npos) << result.errors;
      EXPECT_EQ(tree(place_.repository()), objects_before) << "it changed the repository";
    }
    EXPECT_NE(restore({}).status, 0);
    EXPECT_TRUE(is_empty_or_absent(target()));
  }
}

TEST_F(DamagedArchive, a_key_object_that_is_lost_is_no_loss_to_who_has_the_recovery_kit) {
  const auto keys = files_below(place_.repository() / "keys");
  ASSERT_EQ(keys.size(), 1U);
  const auto configuration = operations::read_configuration(place_.configuration());
  const std::string kit =
      repository::key_text(*operations::open_site(configuration, "").repository.protection().key);
  const Damage damage(keys.front());
  const Damage key_file(place_.path("holdfast.key"));
  for (const std::string how : {"flip", "cut", "remove"}) {
    SCOPED_TRACE(how);
    if (how == "flip") damage.flip(damage.size() / 2);
    if (how == "cut") damage.cut(damage.size() / 2);
    if (how == "remove") damage.remove();
    for (const std::string command : {"list", "verify", "backup"}) {
      const Result result = place_.holdfast({command});
      EXPECT_EQ(result.status, status_of(Code::key)) << command << result.errors;
      EXPECT_NE(result.errors.find("recovery kit"), std::string::npos) << result.errors;
    }
  }
  base::replace_file(place_.path("holdfast.key"), base::view(kit + "\n"));
  place_.give_to_server_user(place_.path("holdfast.key"));
  EXPECT_EQ(place_.must({"verify"}).status, 0);
  expect_first_restores();
}

TEST_F(DamagedArchive, a_system_that_is_no_longer_registered_is_not_taken_for_one_without_backups) {
  const Damage damage(system_directory(place_) / "system.json");
  damage.remove();
  const Result listed = place_.holdfast({"list"});
  EXPECT_NE(listed.status, 0) << listed.output;
  const Result verified = place_.holdfast({"verify"});
  EXPECT_NE(verified.status, 0) << verified.output;
  EXPECT_NE(restore({}).status, 0);
  EXPECT_TRUE(is_empty_or_absent(target()));
}

}  // namespace
}  // namespace holdfast::tests
