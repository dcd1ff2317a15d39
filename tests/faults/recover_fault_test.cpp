// What would stop a recovery half-way is found before production is touched.

#include "faults/faults.h"
#include "harness/recover_world.h"

namespace holdfast::tests {
namespace {

class Obstacles : public RecoverWorld {
 protected:
  explicit Obstacles(const std::function<void(const Place&)>& prepare = {})
      : RecoverWorld(15, prepare) {}

  std::string postmaster() const { return text_of(data() / "postmaster.pid"); }
  /// Named by the plan and by the recovery, which does not begin.
  void expect_refused(Code code, const std::vector<std::string>& names) const {
    const std::string running = fs::exists(data() / "postmaster.pid") ? postmaster() : "";
    const Result plan = recover({"--plan"});
    const Result refused = recover();
    EXPECT_EQ(plan.status, status_of(code)) << plan.errors;
    EXPECT_EQ(refused.status, status_of(code)) << refused.errors;
    for (const std::string& name : names) {
      EXPECT_NE(plan.output.find(name), std::string::npos) << plan.output;
      EXPECT_NE(refused.errors.find(name), std::string::npos) << refused.errors;
    }
    EXPECT_FALSE(fs::exists(place_.path("recoveries"))) << "it began";
    if (!running.empty()) {
      EXPECT_EQ(postmaster(), running) << "production was touched";
    }
  }
};

TEST_F(Obstacles, a_disk_that_is_too_small_is_no_place_to_recover_to) {
  const SmallDisk disk(place_, place_.path("small"), "20m");
  configure("[recover]\ndirectory = \"small/data\"\n");
  expect_refused(Code::no_space, {place_.path("small"), "are needed"});
  disk.grow("400m");
  const Result done = recover();
  EXPECT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
  run_tool(cluster_->installation(), "pg_ctl",
           {"-D", place_.path("small/data"), "-m", "immediate", "-w", "stop"});
}

TEST_F(Obstacles, unarchived_wal_must_fit_as_well) {
  cluster_->sql("ALTER SYSTEM SET archive_command = 'false'");
  cluster_->sql("SELECT pg_reload_conf()");
  for (int i = 0; i < 6; ++i) {
    cluster_->sql("INSERT INTO orders VALUES (0)");
    cluster_->sql("SELECT pg_switch_wal()");
  }
  const SmallDisk disk(place_, place_.path("small"), "130m");
  configure("[recover]\ndirectory = \"small/data\"\n");
  expect_refused(Code::no_space, {"WAL that was not archived"});
  disk.grow("600m");
  const Result done = recover();
  EXPECT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1506");
  run_tool(cluster_->installation(), "pg_ctl",
           {"-D", place_.path("small/data"), "-m", "immediate", "-w", "stop"});
}

class MountedData : public Obstacles {
 protected:
  MountedData()
      : Obstacles(
            [this](const Place& place) { disk_.emplace(place, place.path("data"), "300m"); }) {}
  static inline std::optional<SmallDisk> disk_;
};

TEST_F(MountedData, is_not_renamed) {
  expect_refused(Code::refused, {data(), "mount point"});
  cluster_->stop();
  disk_.reset();
}

class LinkedData : public Obstacles {
 protected:
  LinkedData()
      : Obstacles([](const Place& place) {
          fs::create_directories(place.path("far/data"));
          place.give_to_server_user(place.path("far"));
          place.give_to_server_user(place.path("far/data"));
          fs::create_symlink(place.path("far/data"), place.path("data"));
        }) {}
};

TEST_F(LinkedData, comes_back_where_the_link_leads) {
  ASSERT_EQ(recover().status, 0);
  EXPECT_TRUE(fs::is_symlink(data()));
  EXPECT_TRUE(fs::exists(place_.path("far/data/PG_VERSION")));
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
  const Result undone = recover({"--undo", "--yes"});
  EXPECT_EQ(undone.status, 0) << undone.errors;
  EXPECT_TRUE(fs::is_symlink(data()));
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000001");
}

TEST_F(Obstacles, a_directory_that_may_not_be_renamed_stays_and_serves) {
  fs::permissions(place_.path(), fs::perms(0555));
  // The journals may be written all the same.
  const Result refused = recover();
  EXPECT_EQ(refused.status, status_of(Code::permission)) << refused.errors;
  EXPECT_NE(refused.errors.find(place_.path().parent_path()), std::string::npos) << refused.errors;
  fs::permissions(place_.path(), fs::perms(0755));
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
}

TEST_F(Obstacles, a_port_that_only_the_command_line_has_is_named) {
  run_tool(cluster_->installation(), "pg_ctl", {"-D", data(), "-m", "fast", "-w", "stop"});
  const std::string text = text_of(place_.configuration());
  const std::size_t at = text.find("port=5432");
  ASSERT_NE(at, std::string::npos) << text;
  run_tool(cluster_->installation(), "pg_ctl",
           {"-D", data(), "-w", "-l", place_.path("log"), "-o", "-p 5499", "start"});
  overwrite(place_.configuration(), std::string(text).replace(at, 9, "port=5499"));
  expect_refused(Code::refused, {"port = \"5499\"", "command line"});
  // Started by what knows of it.
  configure(fmt::format("[recover.command]\nstart = \"{} -D {} -w -l {} -o '-p 5499' start\"\n",
                        (cluster_->installation().bin / "pg_ctl").string(), data().string(),
                        place_.path("log").string()));
  const Result done = recover();
  EXPECT_EQ(done.status, 0) << done.errors;
}

TEST_F(Obstacles, a_password_that_is_missing_is_named) {
  cluster_->sql("ALTER ROLE postgres PASSWORD 'canary-secret'");
  overwrite(data() / "pg_hba.conf", "local all all scram-sha-256\n");
  place_.give_to_server_user(data() / "pg_hba.conf");
  cluster_->sql("SELECT pg_reload_conf()");
  eventually("it asks for a password", [&] {
    try {
      cluster_->sql("SELECT 1");
      return false;
    } catch (const base::Error&) {
      return true;
    }
  });
  const auto taken = place_.holdfast({"backup"}, {{"PGPASSWORD", "canary-secret"}});
  ASSERT_EQ(taken.status, 0) << taken.errors;
  expect_refused(Code::unreachable, {"password"});
  // Nobody can be asked before: it is found when it matters, at once.
  run_tool(cluster_->installation(), "pg_ctl", {"-D", data(), "-m", "fast", "-w", "stop"});
  configure("[recover.limit]\nstart = \"1min\"\n");
  const auto begun = std::chrono::steady_clock::now();
  const Result failed = recover();
  EXPECT_NE(failed.errors.find("password"), std::string::npos) << failed.errors;
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(50));
  EXPECT_NE(state_of("start"), "done");
  EXPECT_NE(text_of(journal()).find("password"), std::string::npos) << "the record says no cause";
}

TEST_F(Obstacles, what_later_steps_name_is_looked_for_first) {
  configure(
      "[recover]\nenvironment_file = \"nowhere.env\"\ndatabase_host = \"new\"\n"
      "smoke = \"nowhere.toml\"\n[recover.compose]\nfiles = [\"nowhere.yml\"]\nservice = \"a\"\n");
  expect_refused(Code::configuration, {"nowhere.env", "nowhere.toml", "nowhere.yml"});
}

/// Of a server that does not come up, its own words are in the error and in the record.
TEST_F(Obstacles, a_server_that_does_not_start_says_why) {
  configure("[recover.command]\nprove = \"echo nonsense = 1 >> data/postgresql.conf\"\n");
  const Result failed = recover();
  EXPECT_NE(failed.status, 0);
  EXPECT_NE(failed.errors.find("step start failed"), std::string::npos) << failed.errors;
  EXPECT_NE(failed.errors.find("nonsense"), std::string::npos) << failed.errors;
  EXPECT_NE(text_of(journal()).find("nonsense"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::tests
