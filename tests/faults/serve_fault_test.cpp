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
