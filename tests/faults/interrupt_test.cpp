// Signals that ask to stop, and outputs that nobody reads.

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

constexpr auto soon = std::chrono::seconds(5);

class Interrupt : public ::testing::TestWithParam<int> {
 protected:
  Interrupt() : cluster_(place_.cluster()) {
    cluster_->sql(
        "CREATE TABLE noise AS SELECT md5(random()::text) || md5(random()::text) AS v "
        "FROM generate_series(1, 300000)");
  }
  void expect_interrupted(Running& command) const {
    command.signal(GetParam());
    EXPECT_EQ(command.wait_for(soon), status_of(Code::interrupted)) << command.said();
    EXPECT_NE(command.said().find("stopped by a signal"), std::string::npos) << command.said();
  }
  void expect_no_trace_of_a_backup() const {
    for (const char* kind : {"packs", "maps", "backups"}) {
      EXPECT_TRUE(objects(place_, kind).empty()) << kind;
    }
    // The server's archiver may be storing a segment just now; what a backup left would stay.
    await([&] { return files_below(place_.repository() / ".tmp").empty(); },
          "no unfinished object");
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

INSTANTIATE_TEST_SUITE_P(Signals, Interrupt, ::testing::Values(SIGTERM, SIGINT),
                         [](const auto& each) { return each.param == SIGTERM ? "TERM" : "INT"; });

TEST_P(Interrupt, a_backup_that_copies_stops_and_takes_back_what_it_stored) {
  Running backup(place_, {"backup", "--compare", "nothing"});
  await_growing_pack(place_, backup);
  expect_interrupted(backup);
  expect_no_trace_of_a_backup();
  place_.must({"backup"});
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("orphans"), 0);
}

TEST_P(Interrupt, a_backup_that_waits_for_the_server_stops_too) {
  const pid_t checkpointer = std::stoi(
      cluster_->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"));
  ::kill(checkpointer, SIGSTOP);
  Running backup(place_, {"backup", "--compare", "nothing"});
  await(
      [&] {
        return cluster_->sql(
                   "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                   "'holdfast' AND query ~ 'backup_start' AND pid <> pg_backend_pid()") == "1";
      },
      "pg_backup_start");
  expect_interrupted(backup);
  ::kill(checkpointer, SIGCONT);
  expect_no_trace_of_a_backup();
  place_.must({"backup"});
}

TEST_P(Interrupt, a_restore_stops_and_leaves_an_empty_directory) {
  place_.must({"backup"});
  const fs::path target = place_.path("restored");
  Running restore(place_, {"restore", target.string(), "--to", "immediate"});
  await([&] { return restore.over() || fs::exists(target / "base" / "1" / "1259"); }, "some files");
  expect_interrupted(restore);
  EXPECT_TRUE(is_empty_or_absent(target));
  place_.must({"restore", target.string(), "--to", "immediate"});
}

class Output : public ::testing::Test {
 protected:
  Place place_;
  std::unique_ptr<Cluster> cluster_ = place_.cluster();
};

TEST_F(Output, that_nobody_reads_does_no_harm) {
  for (const std::string command : {"backup", "backup --json", "verify", "list", "doctor"}) {
    SCOPED_TRACE(command);
    const Result result = shell(place_, "set -o pipefail; $H " + command + " 2>&1 | head -c0");
    EXPECT_TRUE(result.status == 0 || result.status == 128 + SIGPIPE ||
                result.status == status_of(Code::check_failed))
        << result.status;
    expect_all_verifies(place_);
  }
  EXPECT_EQ(backup_ids(place_).size(), 2U);
  place_.must({"restore", place_.path("restored").string()});
}

TEST_F(Output, that_is_closed_is_not_mistaken_for_a_file_that_is_open) {
  // With standard output closed, the first file that is opened gets its number.
  for (const std::string closed : {">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"}) {
    SCOPED_TRACE(closed);
    const std::size_t before = backup_ids(place_).size();
    EXPECT_NE(shell(place_, "$H backup " + closed).status, 128 + SIGSEGV);
    EXPECT_EQ(backup_ids(place_).size(), before + 1);
    expect_all_verifies(place_);
    shell(place_, "$H nonsense " + closed);
  }
  place_.must({"restore", place_.path("restored").string()});
}

TEST_F(Output, that_cannot_be_written_is_a_failure) {
  place_.must({"backup"});
  for (const std::string command : {"list", "list --json", "verify", "verify --json"}) {
    SCOPED_TRACE(command);
    const Result result = shell(place_, "$H " + command + " >/dev/full");
    EXPECT_EQ(result.status, status_of(Code::io)) << result.errors;
    EXPECT_NE(result.errors.find("output"), std::string::npos) << result.errors;
  }
}

}  // namespace
}  // namespace holdfast::tests
