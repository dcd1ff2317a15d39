// `holdfast serve` on a disk that is full and beside a repository that hangs: it says so, goes on,
// and what was due is done when that is over.

#include "harness/daemon.h"
#include "lossy_disk.h"

namespace holdfast::tests {
namespace {

using ServeFault = ServeTest;

TEST_F(ServeFault, goes_on_when_its_own_disk_is_full) {
  const SmallDisk disk(place_, place_.path("small"), "64k");
  std::string text = configured_ + "[schedule]\nbackup = \"daily 02:00\"\n";
  text.replace(text.find("serve.json"), 10, "small/serve.json");
  was_away("backup.main");
  fs::copy(place_.path("serve.json"), place_.path("small/serve.json"));
  place_.give_to_server_user(place_.path("small/serve.json"));
  overwrite(place_.configuration(), text);
  shell(place_, "cat /dev/zero >small/filler");
  Running daemon(place_, {"serve"});
  await([&] { return hook_.count("begins daemon/state") == 1; }, "the alarm");
  await_said(daemon, "backup.main ended well");
  fs::remove(place_.path("small/filler"));
  await([&] { return hook_.count("ends status/main/backup") == 1; }, "a look at the backup");
  daemon.signal(SIGHUP);  // changes what it notes
  await([&] { return hook_.count("ends daemon/state") == 1; }, "its end");
  EXPECT_EQ(backup_ids(place_).size(), 1U) << "it knew in memory what it had done";
  expect_clean_end(daemon);
}

TEST_F(ServeFault, a_repository_that_is_full_is_not_tried_again_at_once) {
  const fs::path before = place_.path("before");
  fs::rename(place_.repository(), before);
  const SmallDisk disk(place_, place_.repository(), "64m");
  ASSERT_EQ(shell(place_, "cp -a before/. repository && cat /dev/zero >repository/filler").status,
            1);
  const fs::path filler = place_.path("repository/filler");
  fs::resize_file(filler, fs::file_size(filler) - (1 << 20));
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  was_away("backup.main");
  Running daemon(place_, {"serve"});
  await([&] { return hook_.count("begins job/backup.main") == 1; }, "the alarm");
  await_said(daemon, "backup.main is tried again in 300 s");
  fs::remove(filler);
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("ends job/backup.main") == 1; }, "its end");
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  expect_clean_end(daemon);
}

TEST_F(ServeFault, tells_when_the_disk_of_pg_wal_fills_up) {
  source_->stop();
  const fs::path wal = source_->data_directory() / "pg_wal";
  const SmallDisk disk(place_, place_.path("wal"), "256m");
  ASSERT_EQ(shell(place_, fmt::format("cp -a {0}/. wal && rm -r {0} && ln -s {1} {0}", wal.string(),
                                      place_.path("wal").string()))
                .status,
            0);
  start_again(place_, *source_);
  Running daemon(place_, {"serve"});
  await([&] { return get(daemon, "ready").status == 200; }, "readiness");
  EXPECT_EQ(hook_.count("begins status/main/disk"), 0);
  const auto leave = [&](int percent) {
    const std::uint64_t room = (std::uint64_t{256} << 20) * static_cast<unsigned>(percent) / 100;
    const std::uint64_t left = fs::space(place_.path("wal")).available;
    const std::string fill = "head -c {} /dev/zero >>wal/filler";
    ASSERT_EQ(shell(place_, fmt::format(fmt::runtime(fill), left - room)).status, 0);
  };
  leave(7);
  await([&] { return hook_.count("begins status/main/disk") == 1; }, "a warning");
  leave(1);
  await([&] { return hook_.count("worsens status/main/disk") == 1; }, "worse");
  fs::remove(place_.path("wal/filler"));
  await([&] { return hook_.count("ends status/main/disk") == 1; }, "room");
  expect_clean_end(daemon);
  source_->stop();
}

TEST_F(ServeFault, ends_within_a_quarter_of_a_minute_while_a_repository_hangs) {
  if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
  const fs::path before = place_.path("before");
  fs::rename(place_.repository(), before);
  LossyDisk disk(place_, place_.repository());
  ASSERT_EQ(shell(place_, "cp -a before/. repository").status, 0);
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  was_away("backup.main");
  disk.hang();
  Running daemon(place_, {"serve"});
  await([&] { return disk.waiting() > 2; }, "a job, a look and alarms that hang");
  await([&] { return get(daemon, "health").status == 200; }, "health");
  daemon.signal(SIGTERM);
  const auto asked = std::chrono::steady_clock::now();
  await_said(daemon, "not all that ran has ended");
  EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(15));
  // A call that a file system in user space has taken holds a process back even from SIGKILL.
  disk.release();
  EXPECT_EQ(daemon.wait_for(std::chrono::seconds(5)), 0);
}

TEST_F(ServeFault, DS1_a_repository_that_hangs_keeps_nothing_else_from_going_on) {
  if (std::getenv("HOLDFAST_LONG") == nullptr) GTEST_SKIP() << "takes minutes: HOLDFAST_LONG=1";
  if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
  const fs::path before = place_.path("before");
  fs::rename(place_.repository(), before);
  LossyDisk disk(place_, place_.repository());
  const std::string copy =
      fmt::format("cp -a {}/. {}", before.string(), place_.repository().string());
  ASSERT_EQ(shell(place_, copy).status, 0);
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  was_away("backup.main");
  disk.hang();
  Running daemon(place_, {"serve"});
  const auto patiently = [&](const std::function<bool()>& condition, const std::string& what) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(4);
    while (!condition() && std::chrono::steady_clock::now() < limit) {
      EXPECT_EQ(get(daemon, "health").status, 200) << daemon.said();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    EXPECT_TRUE(condition()) << what << daemon.said();
  };
  patiently([&] { return hook_.count("begins daemon/stuck/backup.main") == 1; }, "the job");
  patiently([&] { return hook_.count("begins watch/main") == 1; }, "status");
  disk.release();
  patiently([&] { return hook_.count("ends daemon/stuck/backup.main") == 1; }, "its end");
  patiently([&] { return hook_.count("ends watch/main") == 1; }, "status again");
  await_said(daemon, "backup.main ended well");
  expect_clean_end(daemon);
}

}  // namespace
}  // namespace holdfast::tests
