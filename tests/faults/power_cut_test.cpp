// kill -9 at any change that a command makes to the disk of the repository, together with a power
// cut that takes with it what was not synced: INV-1 to INV-4 hold, and the next run heals. What a
// command acknowledged is there after a power cut, also if it met what a killed one had left
// (TRAPS RC1, RC6, WP3, WR4).
//
// The short version takes a spread of moments, HOLDFAST_LONG every one.

#include <cstring>
#include <regex>

#include "fault_store.h"
#include "harness/receiver.h"
#include "lossy_disk.h"
#include "operations/expire.h"

namespace holdfast::tests {
namespace {

using base::Code;
using Unsynced = LossyDisk::Unsynced;

constexpr int killed = 128 + SIGKILL;

bool long_version() {
  return std::getenv("HOLDFAST_LONG") != nullptr;
}

/// Which of so many changes to die at: all, or some of them and the last ones, where it is decided
/// what counts.
std::vector<std::uint64_t> moments(std::uint64_t changes, std::uint64_t some) {
  std::vector<std::uint64_t> all;
  const std::uint64_t last = std::min<std::uint64_t>(changes, long_version() ? changes : 6);
  const std::uint64_t step = std::max<std::uint64_t>(1, (changes - last) / some);
  for (std::uint64_t at = 1; at <= changes - last; at += step) all.push_back(at);
  for (std::uint64_t at = changes - last + 1; at <= changes; ++at) all.push_back(at);
  return all;
}

class PowerCut : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
    disk_.emplace(place_, place_.path("disk"));
    fs::create_directory_symlink(place_.path("disk"), place_.repository());
    cluster_ = place_.cluster();
    // Nobody but the command under test comes to the disk.
    cluster_->sql("ALTER SYSTEM SET archive_command = ''");
    cluster_->sql("SELECT pg_reload_conf()");
    await([&] { return cluster_->sql("SHOW archive_command").empty(); }, "no archiver");
  }

  /// What is run, and what must be so: after a cut at any moment, and when it has ended with 0.
  struct Work {
    std::function<int()> run;
    std::function<void()> expect_whole;
    std::function<void()> expect_done;
  };

  void at_each_moment(const Work& work, std::uint64_t some) {
    disk_->settle();
    disk_->keep();
    disk_->plan({});
    ASSERT_EQ(work.run(), 0);
    const std::uint64_t changes = disk_->count();
    disk_->cut();
    work.expect_done();
    int fired = 0;
    for (const std::uint64_t at : moments(changes, some)) {
      SCOPED_TRACE(fmt::format("change {} of {}", at, changes));
      for (const bool power_fails : {true, false}) {
        SCOPED_TRACE(power_fails ? "killed, power cut" : "killed");
        disk_->put_back();
        disk_->plan({.at = at});
        const int status = work.run();
        if (!disk_->fired()) continue;  // a few changes more or less than before
        ++fired;
        EXPECT_EQ(status, killed);
        if (!power_fails) {
          disk_->revive();
        } else if (long_version() && at % 2 == 0) {
          disk_->cut(Unsynced::luck, static_cast<unsigned>(at));
        } else {
          disk_->cut(at % 4 == 1 ? Unsynced::empty : Unsynced::zeros);
        }
        work.expect_whole();
        EXPECT_EQ(work.run(), 0) << "the next run";
        disk_->cut();
        work.expect_done();
      }
    }
    EXPECT_GT(fired, 10) << "the faults did not fire";
  }

  Place place_;
  std::optional<LossyDisk> disk_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(PowerCut, at_any_change_of_a_backup_leaves_what_is_listed_restorable) {
  place_.must({"backup"});
  cluster_->sql("CREATE TABLE t AS SELECT g AS id, md5(g::text) FROM generate_series(1, 9000) g");
  const auto before = backup_ids(place_);
  at_each_moment({[&] {
                    const Result result = place_.holdfast({"backup"});
                    EXPECT_TRUE(result.status == 0 || result.status == killed) << result.errors;
                    return result.status;
                  },
                  [&] {
                    EXPECT_EQ(backup_ids(place_).front(), before.front());
                    expect_all_verifies(place_);
                  },
                  [&] {
                    EXPECT_GT(backup_ids(place_).size(), before.size());
                    expect_all_verifies(place_);
                  }},
                 9);
  place_.restored(*cluster_, "restored", {"--to", "immediate"})->stop();
}

TEST_F(PowerCut, INV_4_at_any_change_of_wal_push_loses_no_segment_that_was_acknowledged) {
  const std::string name = cluster_->sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
  cluster_->sql("SELECT pg_switch_wal()");
  const fs::path segment = cluster_->data_directory() / "pg_wal" / name;
  const fs::path fetched = place_.path("fetched");
  const auto fetch = [&] { return place_.holdfast({"wal", "fetch", name, fetched.string()}); };
  const auto expect_done = [&] {
    const Result result = fetch();
    ASSERT_EQ(result.status, 0) << result.errors;
    EXPECT_EQ(base::read_existing_file(fetched), base::read_existing_file(segment));
  };
  at_each_moment({[&] {
                    return place_.holdfast({"wal", "push", segment.string()}).status;
                  },
                  [&] {
                    const Result result = fetch();
                    if (result.status == 0) expect_done();
                    EXPECT_TRUE(result.status == 0 || result.status == 1) << result.errors;
                  },
                  expect_done},
                 20);
}

/// A failed fsync is not cured by another one: what then is called done must be there all the same.
TEST_F(PowerCut, INV_4_at_any_change_that_fails_wal_push_fails_or_the_segment_is_there) {
  const std::string name = cluster_->sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
  cluster_->sql("SELECT pg_switch_wal()");
  const fs::path segment = cluster_->data_directory() / "pg_wal" / name;
  const fs::path fetched = place_.path("fetched");
  const auto push = [&] { return place_.holdfast({"wal", "push", segment.string()}).status; };
  disk_->settle();
  disk_->keep();
  disk_->plan({});
  ASSERT_EQ(push(), 0);
  int failed = 0;
  for (const std::uint64_t at : moments(disk_->count(), 10)) {
    for (const int error : {EIO, ENOSPC}) {
      SCOPED_TRACE(fmt::format("change {}: {}", at, std::strerror(error)));
      disk_->put_back();
      disk_->plan({.at = at, .error = error});
      if (const int status = push(); status != 0) {
        ++failed;
        EXPECT_EQ(status, status_of(error == EIO ? Code::io : Code::no_space));
        EXPECT_EQ(push(), 0) << "the next run";
      }
      disk_->cut();
      ASSERT_EQ(place_.holdfast({"wal", "fetch", name, fetched.string()}).status, 0);
      EXPECT_EQ(base::read_existing_file(fetched), base::read_existing_file(segment));
    }
  }
  EXPECT_GT(failed, 10) << "the faults did not fire";
}

TEST_F(PowerCut, INV_3_at_any_change_of_expire_takes_nothing_that_is_needed) {
  for (int i = 0; i < 3; ++i) {
    cluster_->sql(fmt::format("CREATE TABLE t{} AS SELECT generate_series(1, 9000)", i));
    place_.must({"backup"});
  }
  std::string text = text_of(place_.configuration());
  text.resize(text.find("[keep]"));
  overwrite(place_.configuration(), text + "[keep]\nbackups = 1\n");
  const std::string newest = backup_ids(place_).back();
  const auto expire = [&] {
    return in_a_process([&] {
             const auto read = operations::read_configuration(place_.configuration());
             const operations::Site site = operations::open_site(read, "");
             const operations::ExpireRequest request{
                 base::Microseconds(0), {}, std::chrono::seconds(60)};
             base::Progress progress;
             const auto plan = operations::plan_expire(site, request);
             const auto outcome = operations::expire(site, plan, request, progress);
             if (!outcome.problems.empty()) base::fail(Code::corrupt, "{}", outcome.problems[0]);
           })
        .status;
  };
  at_each_moment({expire,
                  [&] {
                    EXPECT_EQ(backup_ids(place_).back(), newest);
                    expect_all_verifies(place_);
                  },
                  [&] {
                    EXPECT_EQ(backup_ids(place_), std::vector<std::string>{newest});
                    expect_all_verifies(place_);
                  }},
                 10);
}

/// A backup whose maker died before its name was durable must not make older ones go.
TEST_F(PowerCut, INV_3_expire_counts_no_backup_that_a_power_cut_would_take) {
  place_.must({"backup"});
  std::string text = text_of(place_.configuration());
  text.resize(text.find("[keep]"));
  overwrite(place_.configuration(), text + "[keep]\nbackups = 1\n");
  disk_->settle();
  disk_->keep();
  disk_->plan({});
  place_.must({"backup"});
  std::uint64_t at = disk_->count();
  // The last moments of a backup are those of its commit, and of giving back the lease.
  for (;; --at) {
    disk_->put_back();
    disk_->plan({.at = at});
    EXPECT_EQ(place_.holdfast({"backup"}).status, killed);
    disk_->revive();
    const std::size_t seen = backup_ids(place_).size();
    place_.must({"expire", "--yes"});
    EXPECT_EQ(backup_ids(place_).size(), 1U);
    disk_->cut();
    EXPECT_EQ(backup_ids(place_).size(), 1U);
    expect_all_verifies(place_);
    if (seen == 1) break;
  }
}

class PowerCutInit : public PowerCut {
 protected:
  fs::path configuration() const { return place_.path("disk") / "etc" / "holdfast.toml"; }
  Result holdfast(std::vector<std::string> arguments) const {
    base::Command command = Running::command(place_, {});
    command.argv = {holdfast_binary().string(), "--config", configuration().string()};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    const base::Outcome outcome = base::run(command);
    return {outcome.status, outcome.output, outcome.errors};
  }
  /// The key that a recovery kit carries opens the repository that is there.
  void expect_opened_by(const std::string& kit) const {
    std::smatch key;
    ASSERT_TRUE(std::regex_search(kit, key, std::regex("[0-9a-f]{64}"))) << kit;
    const fs::path file = place_.path("kit.key");
    base::replace_file(file, base::view(key.str()), 0644);
    std::string text = text_of(configuration());
    const std::size_t begin = text.find("key_file = ");
    text.replace(begin, text.find('\n', begin) - begin, "key_file = \"" + file.string() + "\"");
    overwrite(place_.path("kit.toml"), text);
    base::Command command = Running::command(place_, {});
    command.argv = {holdfast_binary().string(), "--config", place_.path("kit.toml").string(),
                    "list"};
    EXPECT_EQ(base::run(command).status, 0);
  }
};

TEST_F(PowerCutInit, at_any_change_can_be_run_again_and_its_recovery_kit_opens_what_is_there) {
  const std::string root = place_.path("disk").string();
  ASSERT_EQ(shell(place_, fmt::format("rm -rf {0}/* {0}/.tmp", root)).status, 0);
  const std::vector<std::string> init = {"init",
                                         "--connection",
                                         cluster_->connection(),
                                         "--data-directory",
                                         cluster_->data_directory().string(),
                                         "--repository",
                                         "file://" + root + "/backups"};
  std::string kit;
  at_each_moment({[&] {
                    const Result result = holdfast(init);
                    EXPECT_TRUE(result.status == 0 || result.status == killed) << result.errors;
                    if (result.status == 0) kit = result.output;
                    // Killed when all was done but the printing: it says how to see it.
                    if (result.status == 0 && kit.find(" key ") == std::string::npos) {
                      EXPECT_NE(kit.find("--recovery-kit"), std::string::npos) << kit;
                      kit = holdfast({"init", "--recovery-kit"}).output;
                    }
                    return result.status;
                  },
                  [] {},
                  [&] {
                    const Result listed = holdfast({"list"});
                    EXPECT_EQ(listed.status, 0) << listed.errors;
                    expect_opened_by(kit);
                  }},
                 long_version() ? 1000 : 40);
  EXPECT_EQ(holdfast({"backup"}).status, 0);
}

class PowerCutReceive : public ReceiveTest {
 protected:
  void SetUp() override {
    if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
    overwrite(place_.configuration(),
              text_of(place_.configuration()) + "[wal]\nslice_interval = \"20ms\"\n");
    const fs::path before = place_.path("before");
    fs::rename(place_.repository(), before);
    disk_.emplace(place_, place_.repository());
    ASSERT_EQ(
        shell(place_, fmt::format("cp -a {}/. {}", before.string(), place_.repository().string()))
            .status,
        0);
    disk_->settle();
  }
  postgres::Lsn confirmed() const {
    const std::string lsn = source_->sql("SELECT max(restart_lsn) FROM pg_replication_slots");
    return postgres::parse_lsn(lsn).value_or(postgres::Lsn{});
  }

  std::optional<LossyDisk> disk_;
};

TEST_F(PowerCutReceive, WR4_INV_4_at_any_change_keeps_what_was_confirmed) {
  const std::uint64_t step = long_version() ? 1 : 7;
  for (std::uint64_t at = 1; at <= 85; at += step) {
    for (const bool power_fails : {true, false}) {
      SCOPED_TRACE(fmt::format("change {}{}", at, power_fails ? ", power cut" : ""));
      disk_->plan({.at = at});
      Running receiver(place_, {"wal", "receive"});
      for (std::uint64_t i = 0; !receiver.over(); ++i) {
        insert("x");
        if (i % 16 == 3) source_->sql("SELECT pg_switch_wal()");
        ASSERT_LT(i, 20000U) << receiver.said();
      }
      EXPECT_EQ(receiver.wait(), killed) << receiver.said();
      if (power_fails) {
        disk_->cut(at % 2 == 0 ? Unsynced::empty : Unsynced::zeros);
        EXPECT_LE(confirmed(), end());
      } else {
        disk_->revive();  // and the next one confirms what this one has left
      }
    }
  }
  const auto receiver = receive();
  await_all_stored(*source_);
  receiver->signal(SIGTERM);
  EXPECT_EQ(receiver->wait(), 0) << receiver->said();
  disk_->cut();
  EXPECT_TRUE(listed().at("gaps").empty());
  place_.must({"verify"});
  EXPECT_EQ(place_.restored(*source_, "restored")->sql("SELECT count(*) FROM t"),
            source_->sql("SELECT count(*) FROM t"));
}

}  // namespace
}  // namespace holdfast::tests
