// kill -9 at random moments of each command. Afterwards nothing is half there, and the same command
// simply works. HOLDFAST_LONG=1 kills many times more; HOLDFAST_SEED repeats a run.

#include <random>

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;
using Clock = std::chrono::steady_clock;

int rounds() {
  return std::getenv("HOLDFAST_LONG") != nullptr ? 150 : 6;
}

class Kill : public ::testing::Test {
 protected:
  Kill() : cluster_(place_.cluster()) {
    const char* seed = std::getenv("HOLDFAST_SEED");
    random_.seed(seed != nullptr ? static_cast<unsigned>(std::stoul(seed)) : 20261123U);
    cluster_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 100000) g");
  }

  /// Runs a command to its end and remembers how long that takes.
  void measure(const std::vector<std::string>& arguments) {
    const auto begun = Clock::now();
    place_.must(arguments);
    usual_ = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begun);
  }
  /// Runs it again and kills it at some moment. The waiting is the fault, not a synchronisation.
  void kill_sometime(const std::vector<std::string>& arguments) {
    Running command(place_, arguments);
    std::uniform_int_distribution<std::int64_t> moment(usual_.count() / 20, usual_.count());
    std::this_thread::sleep_for(std::chrono::microseconds(moment(random_)));
    command.signal(SIGKILL);
    if (command.wait() == 128 + SIGKILL) ++kills_;
  }
  void expect_kills() const { EXPECT_GE(kills_, rounds() / 3) << "the faults did not fire"; }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::mt19937 random_;
  std::chrono::microseconds usual_{};
  int kills_ = 0;
};

TEST_F(Kill, init_can_be_run_again_until_it_gets_through) {
  cluster_->stop();  // an archiver that still runs would put WAL where nothing should be
  cluster_->start({{"archive_mode", "off"}});
  const std::vector<std::string> init = {"init",
                                         "--connection",
                                         cluster_->connection(),
                                         "--data-directory",
                                         cluster_->data_directory().string(),
                                         "--repository",
                                         "file://" + place_.repository().string()};
  const auto forget_all = [&] {
    fs::remove_all(place_.repository());
    fs::remove(place_.configuration());
    fs::remove(place_.path("holdfast.key"));
  };
  forget_all();
  measure(init);
  for (int round = 0; round < 2 * rounds(); ++round) {
    forget_all();
    kill_sometime(init);
    const Result again = place_.holdfast(init);
    ASSERT_EQ(again.status, 0) << again.errors;
    EXPECT_EQ(place_.must({"list"}).status, 0);
  }
  place_.must({"backup"});
  place_.must({"verify"});
}

TEST_F(Kill, backup_leaves_no_backup_that_does_not_verify) {
  measure({"backup"});
  for (int round = 0; round < rounds(); ++round) {
    kill_sometime({"backup"});
    expect_all_verifies(place_);
  }
  expect_kills();
  place_.must({"backup"});
  expect_all_verifies(place_);
  await([&] { return files_below(place_.repository() / ".tmp").empty(); }, "nothing unfinished");
}

TEST_F(Kill, wal_push_leaves_the_segment_whole_or_not_at_all) {
  place_.archive_all(*cluster_);
  const fs::path object = objects(place_, "wal").front();
  const fs::path segment = cluster_->data_directory() / "pg_wal" / object.filename();
  const std::vector<std::string> push = {"wal", "push", segment.string()};
  const fs::path fetched = place_.path("fetched");
  fs::remove(object);
  measure(push);
  for (int round = 0; round < 2 * rounds(); ++round) {
    fs::remove(object);
    kill_sometime(push);
    place_.must(push);
    place_.must({"wal", "fetch", segment.filename(), fetched.string()});
    EXPECT_EQ(base::read_existing_file(fetched), base::read_existing_file(segment));
  }
  expect_kills();
}

TEST_F(Kill, wal_fetch_leaves_a_whole_segment_or_none) {
  place_.archive_all(*cluster_);
  const fs::path segment =
      cluster_->data_directory() / "pg_wal" / objects(place_, "wal").front().filename();
  const base::Bytes expected = base::read_existing_file(segment);
  const fs::path fetched = place_.path("fetched");
  const std::vector<std::string> fetch = {"wal", "fetch", segment.filename(), fetched.string()};
  measure(fetch);
  for (int round = 0; round < 2 * rounds(); ++round) {
    fs::remove(fetched);
    kill_sometime(fetch);
    if (fs::exists(fetched)) {
      EXPECT_EQ(base::read_existing_file(fetched), expected);
    }
    place_.must(fetch);
    EXPECT_EQ(base::read_existing_file(fetched), expected);
  }
  expect_kills();
}

// TRAPS RS5: a restore that is half done cannot be started.
TEST_F(Kill, restore_is_not_startable_before_it_is_complete_and_delta_finishes_it) {
  place_.must({"backup"});
  const fs::path target = place_.path("restored");
  const std::vector<std::string> restore = {"restore", target.string(), "--to", "immediate"};
  measure(restore);
  const auto complete = tree(target);
  for (int round = 0; round < rounds(); ++round) {
    fs::remove_all(target);
    kill_sometime(restore);
    if (is_startable(target)) {
      EXPECT_EQ(tree(target), complete) << "it can be started, and is not complete";
      continue;
    }
    if (!fs::exists(target) || fs::is_empty(target)) {
      place_.must(restore);
    } else {
      const Result refused = place_.holdfast(restore);
      EXPECT_EQ(refused.status, status_of(Code::refused)) << refused.errors;
      EXPECT_NE(refused.errors.find("--delta"), std::string::npos) << refused.errors;
      EXPECT_THROW(adopt(cluster_->installation(), target)->start(), base::Error);
      std::vector<std::string> again = restore;
      again.emplace_back("--delta");
      place_.must(again);
    }
    EXPECT_EQ(tree(target), complete);
  }
  expect_kills();
}

TEST_F(Kill, verify_changes_nothing_and_can_be_run_again) {
  place_.must({"backup"});
  measure({"verify"});
  for (int round = 0; round < rounds(); ++round) {
    const auto before = tree(place_.repository());
    kill_sometime({"verify"});
    EXPECT_EQ(tree(place_.repository()), before);
  }
  expect_kills();
  place_.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
