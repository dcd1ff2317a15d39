// A server or a session that goes away under a backup, and backups that meet each other (TRAPS LC2
// to LC5, INV-1).

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

/// Keeps the server from finishing a checkpoint, and so a backup from getting past its start.
class NoCheckpoints {
 public:
  explicit NoCheckpoints(const Cluster& cluster)
      : pid_(std::stoi(
            cluster.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))) {
    ::kill(pid_, SIGSTOP);
  }
  ~NoCheckpoints() { ::kill(pid_, SIGCONT); }
  NoCheckpoints(const NoCheckpoints&) = delete;
  NoCheckpoints& operator=(const NoCheckpoints&) = delete;

 private:
  pid_t pid_;
};

class ServerLoss : public ::testing::Test {
 protected:
  ServerLoss() : cluster_(place_.cluster()) {
    cluster_->sql(
        "CREATE TABLE noise AS SELECT md5(random()::text) || md5(random()::text) AS v "
        "FROM generate_series(1, 300000)");
    place_.must({"backup"});
    stored_ = everything_stored();
  }

  std::vector<fs::path> everything_stored() const {
    std::vector<fs::path> all;
    for (const char* kind : {"packs", "maps", "backups"}) {
      for (const fs::path& each : objects(place_, kind)) all.push_back(each);
    }
    return all;
  }
  /// Of a session that is younger than `since`.
  void await_start(Running& backup, const std::string& since = "-infinity") const {
    await(
        [&] {
          if (backup.over()) throw std::runtime_error("it ended before: " + backup.said());
          return cluster_->sql(
                     "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                     "'holdfast' AND query ~ 'backup_start' AND pid <> pg_backend_pid() "
                     "AND backend_start > '" +
                     since + "'") == "1";
        },
        "pg_backup_start");
  }
  /// Stops the process in the middle of copying files.
  void pause_in_copy(Running& backup) const {
    await_growing_pack(place_, backup);
    backup.signal(SIGSTOP);
    ASSERT_FALSE(backup.over());
  }
  void expect_no_trace() const { EXPECT_EQ(everything_stored(), stored_); }
  void expect_next_works() {
    place_.must({"backup"});
    EXPECT_EQ(backup_ids(place_).size(), 2U);
    EXPECT_EQ(place_.must({"verify", "--json"}).json().at("orphans"), 0);
    // The archiver, too, may have died while it wrote.
    await([&] { return files_below(place_.repository() / ".tmp").empty(); }, "nothing unfinished");
  }
  static void expect_server_error(Running& backup) {
    const int status = backup.wait();
    const std::string said = backup.said();
    EXPECT_TRUE(status == status_of(Code::unreachable) || status == status_of(Code::postgres))
        << status << said;
    EXPECT_EQ(said.find("internal error"), std::string::npos) << said;
    EXPECT_NE(said.find("PostgreSQL"), std::string::npos) << status << ": " << said;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<fs::path> stored_;
};

TEST_F(ServerLoss, a_server_that_dies_during_the_start_costs_that_backup_and_nothing_else) {
  auto held = std::make_unique<NoCheckpoints>(*cluster_);
  Running backup(place_, {"backup", "--compare", "nothing"});
  await_start(backup);
  cluster_->server().kill();
  expect_server_error(backup);
  expect_no_trace();
  start_again(place_, *cluster_);
  expect_next_works();
}

TEST_F(ServerLoss, a_server_that_dies_during_the_copy_costs_that_backup_and_nothing_else) {
  Running backup(place_, {"backup", "--compare", "nothing"});
  pause_in_copy(backup);
  cluster_->server().kill();
  backup.signal(SIGCONT);
  expect_server_error(backup);
  expect_no_trace();
  start_again(place_, *cluster_);
  expect_next_works();
}

TEST_F(ServerLoss, a_session_that_is_terminated_during_the_copy_is_not_simply_opened_again) {
  Running backup(place_, {"backup", "--compare", "nothing"});
  pause_in_copy(backup);
  EXPECT_EQ(cluster_->sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                          "WHERE application_name = 'holdfast' AND pid <> pg_backend_pid()"),
            "1");
  backup.signal(SIGCONT);
  expect_server_error(backup);
  expect_no_trace();
  expect_next_works();
}

TEST_F(ServerLoss, a_session_that_is_terminated_during_the_start_ends_the_backup) {
  const NoCheckpoints held(*cluster_);
  Running backup(place_, {"backup", "--compare", "nothing"});
  await_start(backup);
  cluster_->sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
      "WHERE application_name = 'holdfast' AND pid <> pg_backend_pid()");
  expect_server_error(backup);
  expect_no_trace();
}

TEST_F(ServerLoss, of_two_backups_the_second_is_told_who_the_first_is) {
  auto held = std::make_unique<NoCheckpoints>(*cluster_);
  Running first(place_, {"backup", "--compare", "nothing"});
  await_start(first);
  const Result second = place_.holdfast({"backup", "--json"});
  EXPECT_EQ(second.status, status_of(Code::busy)) << second.errors;
  EXPECT_NE(second.errors.find(fmt::format("process {}", first.pid())), std::string::npos)
      << second.errors;
  EXPECT_NE(second.errors.find("hint: "), std::string::npos);
  EXPECT_EQ(second.json().at("error"), "busy");
  EXPECT_EQ(second.json().at("transient"), true);
  held.reset();
  EXPECT_EQ(first.wait(), 0) << first.said();
  EXPECT_EQ(backup_ids(place_).size(), 2U);
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("orphans"), 0)
      << "the second took something of the first away";
}

// TRAPS LC5: a lease that is broken must not lock anybody out, nor let two in.
TEST_F(ServerLoss, after_a_backup_was_killed_the_next_begins_at_once_three_times_in_turn) {
  const auto begun = std::chrono::steady_clock::now();
  for (int round = 0; round < 3; ++round) {
    const NoCheckpoints held(*cluster_);
    const std::string since = cluster_->sql("SELECT clock_timestamp()");
    Running backup(place_, {"backup", "--compare", "nothing"});
    await_start(backup, since);
    backup.signal(SIGKILL);
    EXPECT_EQ(backup.wait(), 128 + SIGKILL);
    // Its session ends when the server notices; a lease does not wait for that.
  }
  place_.must({"backup"});
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(55))
      << "somebody waited for a lease to run out";
  EXPECT_EQ(backup_ids(place_).size(), 2U);
  place_.must({"verify"});
}

TEST_F(ServerLoss, a_killed_backup_that_was_copying_leaves_nothing_that_lists_or_grows) {
  Running backup(place_, {"backup", "--compare", "nothing"});
  pause_in_copy(backup);
  backup.signal(SIGKILL);
  backup.wait();
  EXPECT_FALSE(files_below(place_.repository() / ".tmp").empty()) << "the fault did not fire";
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  place_.must({"verify"});
  place_.must({"backup"});
  EXPECT_EQ(backup_ids(place_).size(), 2U);
  await([&] { return files_below(place_.repository() / ".tmp").empty(); }, "nothing unfinished");
  place_.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
