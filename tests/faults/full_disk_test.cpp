// A disk that is full, at whatever moment: status 6, nothing half-written, room given back, and all
// is well once there is room (TRAPS WP2, WP3, RC2, CC6).

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

/// A repository on a disk of its own, with a cluster whose backup takes some 8 MB there.
class FullDisk : public ::testing::Test {
 protected:
  FullDisk() : disk_(place_, place_.repository(), "64m"), cluster_(place_.cluster()) {
    // WAL waits in pg_wal until the test lets it go, so that only the command fills the disk.
    hold_archiver();
    cluster_->sql(
        "CREATE TABLE noise AS SELECT md5(random()::text) || md5(random()::text) AS v "
        "FROM generate_series(1, 80000)");
  }
  void hold_archiver() {
    cluster_->sql("ALTER SYSTEM SET archive_command = ''");
    cluster_->sql("SELECT pg_reload_conf()");
    await(
        [&] {
          return cluster_->sql("SHOW archive_command") == "(disabled)" ||
                 cluster_->sql("SHOW archive_command").empty();
        },
        "the archiver to pause");
  }
  void let_archiver_go() {
    cluster_->sql("ALTER SYSTEM RESET archive_command");
    cluster_->sql("SELECT pg_reload_conf()");
  }
  void leave_room(std::uint64_t bytes) { disk_.grow(std::to_string(disk_.used() + bytes)); }
  std::vector<fs::path> remains() const {
    std::vector<fs::path> all = files_below(place_.repository() / ".tmp");
    for (const char* kind : {"packs", "maps", "backups"}) {
      for (const fs::path& each : objects(place_, kind)) all.push_back(each);
    }
    return all;
  }

  Place place_;
  SmallDisk disk_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(FullDisk, a_backup_that_runs_out_of_room_anywhere_leaves_no_trace_and_the_next_one_works) {
  int failures = 0;
  for (std::uint64_t room = 8 << 10; failures < 20; room += room / 2) {
    SCOPED_TRACE(room);
    const std::uint64_t before = disk_.used();
    leave_room(room);
    const Result result = place_.holdfast({"backup"});
    if (result.status == 0) break;
    ++failures;
    EXPECT_EQ(result.status, status_of(Code::no_space)) << result.errors;
    EXPECT_NE(result.errors.find("No space left on device"), std::string::npos) << result.errors;
    EXPECT_NE(result.errors.find("hint: make room"), std::string::npos) << result.errors;
    EXPECT_EQ(remains(), std::vector<fs::path>{});
    // Leases and WAL may stay: they are whole, and the next backup uses them.
    EXPECT_LE(disk_.used(), before + (600 << 10)) << "the room was not given back";
    expect_all_verifies(place_);
  }
  EXPECT_GT(failures, 8) << "the disk was never full";
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  const Result verified = place_.must({"verify", "--json"});
  EXPECT_EQ(verified.json().at("orphans"), 0);
  place_.must({"restore", place_.path("restored").string(), "--to", "immediate"});
}

TEST_F(FullDisk, a_full_disk_does_not_hurt_the_backup_before) {
  place_.must({"backup"});
  cluster_->sql("UPDATE noise SET v = md5(v) || md5(v || 'x')");
  leave_room(1 << 20);
  EXPECT_EQ(place_.holdfast({"backup"}).status, status_of(Code::no_space));
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  disk_.grow("64m");
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("orphans"), 0);
}

TEST_F(FullDisk, wal_push_publishes_nothing_until_there_is_room_and_the_server_tries_again) {
  cluster_->sql("SELECT pg_switch_wal()");
  const fs::path segment = cluster_->data_directory() / "pg_wal" /
                           cluster_->sql(
                               "SELECT min(regexp_replace(name, '.ready$', '')) FROM "
                               "pg_ls_archive_statusdir() WHERE name LIKE '%.ready'");
  const auto before = tree(place_.repository());
  for (const std::uint64_t room : {0, 4 << 10, 64 << 10, 1 << 20}) {
    SCOPED_TRACE(room);
    leave_room(room);
    const Result pushed = place_.holdfast({"wal", "push", segment.string()});
    EXPECT_EQ(pushed.status, status_of(Code::no_space)) << pushed.errors;
    EXPECT_NE(pushed.errors.find("hint: make room"), std::string::npos) << pushed.errors;
    EXPECT_TRUE(objects(place_, "wal").empty());
    await([&] { return files_below(place_.repository() / ".tmp").empty(); }, "nothing unfinished");
  }
  leave_room(0);
  let_archiver_go();
  cluster_->sql("SELECT pg_switch_wal()");
  await([&] { return cluster_->sql("SELECT failed_count FROM pg_stat_archiver") != "0"; },
        "the archiver to fail");
  EXPECT_TRUE(objects(place_, "wal").empty());
  disk_.grow("64m");
  place_.archive_all(*cluster_);
  EXPECT_EQ(place_.must({"wal", "push", segment.string()}).status, 0)
      << "the same bytes are welcome";
  place_.must({"backup"});
  place_.must({"verify"});
}

TEST_F(FullDisk, a_migration_is_not_started_without_room_for_its_way_back) {
  const fs::path ran = place_.path("ran");
  for (const std::uint64_t room : {0, 1 << 20}) {
    leave_room(room);
    const Result refused = place_.holdfast({"migrate", "--", "touch", ran.string()});
    EXPECT_EQ(refused.status, status_of(Code::no_space)) << refused.errors;
    EXPECT_NE(refused.errors.find("the command was not started"), std::string::npos);
    EXPECT_FALSE(fs::exists(ran));
  }
  disk_.grow("64m");
  let_archiver_go();
  place_.must({"migrate", "--", "touch", ran.string()});
  EXPECT_TRUE(fs::exists(ran));
  EXPECT_EQ(place_.must({"migrate", "--list", "--json"}).json().at("migrations").size(), 1U);
}

TEST_F(FullDisk, a_restore_without_room_leaves_an_empty_directory_that_cannot_be_started) {
  place_.must({"backup"});
  const fs::path target = place_.path("restored");
  const SmallDisk small(place_, target, "8k");
  int failures = 0;
  for (std::uint64_t room = 16 << 10; failures < 25; room += room / 2) {
    SCOPED_TRACE(room);
    small.grow(std::to_string(room));
    const Result result = place_.holdfast({"restore", target.string(), "--to", "immediate"});
    if (result.status == 0) break;
    ++failures;
    EXPECT_EQ(result.status, status_of(Code::no_space)) << result.errors;
    EXPECT_NE(result.errors.find("hint: make room"), std::string::npos) << result.errors;
    EXPECT_TRUE(is_empty_or_absent(target));
  }
  EXPECT_GT(failures, 8) << "the disk was never full";
  const auto restored = adopt(cluster_->installation(), target);
  small.grow("256m");
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(restored->sql("SELECT count(*) FROM noise"), "80000");
  restored->stop();
}

// Not a full disk, but a full allowance: also no reason to die and leave half of everything.
TEST_F(FullDisk, a_limit_on_the_size_of_files_is_an_error_like_others) {
  const Result result = shell(place_, "ulimit -f 1500; exec $H backup");
  EXPECT_EQ(result.status, status_of(Code::io)) << result.errors;
  EXPECT_NE(result.errors.find("File too large"), std::string::npos) << result.errors;
  EXPECT_EQ(remains(), std::vector<fs::path>{});
  place_.must({"backup"});
  place_.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
