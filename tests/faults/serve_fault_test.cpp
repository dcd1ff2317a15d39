// `holdfast serve` on a disk that is full, beside a repository that hangs, by a clock that jumps:
// it says so, goes on, and what was due is done when that is over.

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
  // WAL would take the room that a run needs to begin.
  source_->sql("ALTER SYSTEM SET archive_command = ''");
  source_->sql("SELECT pg_reload_conf()");
  await(
      [&] {
        const std::string command = source_->sql("SHOW archive_command");
        return command.empty() || command == "(disabled)";
      },
      "the archiver to pause");
  const fs::path filler = place_.path("repository/filler");
  fs::resize_file(filler, fs::file_size(filler) - (1 << 20));
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  was_away("backup.main");
  Running daemon(place_, {"serve"});
  await([&] { return hook_.count("begins job/backup.main") == 1; }, "the alarm");
  await_said(daemon, "backup.main is tried again in 300 s");
  fs::remove(filler);
  source_->sql("ALTER SYSTEM RESET archive_command");
  source_->sql("SELECT pg_reload_conf()");
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
  await([&] { return disk.waiting() > 1; }, "a job and alarms that hang");
  await([&] { return get(daemon, "health").status == 200; }, "health");
  daemon.signal(SIGTERM);
  const auto asked = std::chrono::steady_clock::now();
  await_said(daemon, "not all that ran has ended");
  EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(15));
  // A call that a file system in user space has taken holds a process back even from SIGKILL.
  disk.release();
  EXPECT_EQ(daemon.wait_for(std::chrono::seconds(5)), 0);
}

TEST_F(ServeFault, a_disk_of_its_own_that_hangs_stops_neither_its_pages_nor_its_end) {
  if (std::getenv("HOLDFAST_LONG") == nullptr) GTEST_SKIP() << "waits for limits: HOLDFAST_LONG=1";
  if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
  LossyDisk disk(place_, place_.path("own"));
  std::string text = configured_;
  overwrite(place_.configuration(), text.replace(text.find("serve.json"), 10, "own/serve.json"));
  Running daemon(place_, {"serve"});
  await([&] { return get(daemon, "ready").status == 200; }, "readiness");
  disk.hang();
  daemon.signal(SIGHUP);  // it notes that
  await([&] { return hook_.count("begins daemon/state") == 1; }, "the alarm");
  EXPECT_EQ(get(daemon, "health").status, 200);
  daemon.signal(SIGTERM);
  const auto asked = std::chrono::steady_clock::now();
  await_said(daemon, "not all that ran has ended");
  EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(20));
  disk.release();
  EXPECT_EQ(daemon.wait_for(std::chrono::seconds(5)), 0);
}

/// Two daemons whose clock is the test's.
class ServeByTheClock : public ServeTest {
 protected:
  ServeByTheClock() {
    fs::copy_file(SHIFTED_CLOCK, place_.path("shifted_clock.so"));
    configured_.replace(configured_.find("\"1s\""), 4, "\"6h\"");
  }
  void is(const std::string& now) const {
    const auto shift = base::parse_time(now, "UTC").time - base::now();
    // In one step: whoever reads it in between would be years away.
    base::replace_file(place_.path("shift"),
                       base::view(std::to_string(shift / std::chrono::seconds(1))), 0644);
  }
  void configure(const std::string& state, const std::string& more = "") const {
    std::string text =
        configured_ + "[schedule]\nbackup = \"daily 02:30\"\ntimezone = \"Europe/Berlin\"\n" + more;
    overwrite(place_.configuration(), text.replace(text.find("serve.json"), 10, state));
  }
  void begin(std::optional<Running>& daemon, const std::string& state) const {
    configure(state);
    daemon.emplace(place_, std::vector<std::string>{"serve"},
                   std::vector<std::pair<std::string, std::string>>{
                       {"LD_PRELOAD", place_.path("shifted_clock.so").string()},
                       {"SHIFTED_CLOCK", place_.path("shift").string()}});
    await_said(*daemon, "serving");
  }
  /// When it will do the next one, in seconds.
  static long next(Running& daemon) {
    const std::string metrics = get(daemon, "metrics").body;
    const std::string name = "holdfast_job_next_timestamp_seconds{job=\"backup.main\"} ";
    const std::size_t at = metrics.find(name);
    return at == std::string::npos ? 0 : std::stol(metrics.substr(at + name.size()));
  }
  static long seconds(const std::string& time) {
    return base::parse_time(time, "UTC").time.time_since_epoch() / std::chrono::seconds(1);
  }
  /// What a daemon knows to be the last run that was done.
  std::string done(const std::string& state) const {
    if (!fs::exists(place_.path(state))) return "";
    const nlohmann::json slot =
        nlohmann::json::parse(text_of(place_.path(state))).at("jobs").at("backup.main").at("slot");
    return slot.is_null() ? "" : slot.get<std::string>().substr(0, 16);
  }
};

TEST_F(ServeByTheClock, two_daemons_do_each_night_once_over_clock_changes_and_absences) {
  std::optional<Running> first;
  std::optional<Running> second;
  is("2030-03-29 12:00");
  begin(first, "first.json");
  begin(second, "second.json");
  const auto expect = [&](const std::string& now, const std::string& slot, std::size_t backups) {
    SCOPED_TRACE(now);
    is(now);
    await([&] { return done("first.json") == slot && done("second.json") == slot; },
          now + ": " + slot);
    EXPECT_EQ(backup_ids(place_).size(), backups);
  };
  // 02:30 is skipped on the 31st.
  expect("2030-03-31 00:59", "2030-03-30T01:30", 1);
  expect("2030-03-31 01:01", "2030-03-31T01:00", 2);
  // Four nights without a clock are one run.
  expect("2030-04-04 12:00", "2030-04-04T00:30", 3);
  // A clock that is put back; and 02:30 comes twice on the 27th.
  is("2030-04-04 03:00");
  expect("2030-10-27 00:31", "2030-10-27T00:30", 4);
  is("2030-10-27 01:31");
  await([&] { return next(*first) == seconds("2030-10-28 01:30"); }, "the next one: tomorrow");
  EXPECT_EQ(backup_ids(place_).size(), 4U);
  first->signal(SIGKILL);
  first->wait();
  is("2030-10-28 01:31");
  await([&] { return done("second.json") == "2030-10-28T01:30"; }, "the other one does it");
  begin(first, "first.json");
  expect("2030-10-28 02:00", "2030-10-28T01:30", 5);
  expect_clean_end(*second);
  // With a jitter it waits some minutes more.
  configure("first.json", "jitter = \"12h\"\n");
  first->signal(SIGHUP);
  await([&] { return next(*first) > seconds("2030-10-29 01:30"); }, "the jitter");
  const long late = next(*first);
  EXPECT_LT(late, seconds("2030-10-29 13:30"));
  is(base::to_string(base::Timestamp(std::chrono::seconds(late - 3))));
  await([&] { return done("first.json") == "2030-10-29T01:30"; }, "the run");
  const std::string said = first->said();
  const std::string begun = said.substr(0, said.rfind(" UTC  backup.main begins"));
  EXPECT_GE(seconds(begun.substr(begun.rfind('\n') + 1)), late) << said;
  expect_clean_end(*first);
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
