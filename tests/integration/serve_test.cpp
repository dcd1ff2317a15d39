// `holdfast serve` with real servers: what is due is done once, what dies is begun again, what is
// wrong is told, and the end is clean.

#include <sys/socket.h>
#include <sys/un.h>

#include "harness/daemon.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;
using Serve = ServeTest;

base::Outcome run(std::vector<std::string> argv) {
  base::Command command;
  command.argv = std::move(argv);
  return base::run(command);
}

/// A schedule that is due for the first time at this second or the next one.
std::string every_from(const std::string& which) {
  const auto now = std::chrono::floor<std::chrono::seconds>(base::now()).time_since_epoch();
  return fmt::format("every {}s", now.count() + (which == "next" ? 1 : 0));
}

TEST_F(Serve, catches_up_a_backup_that_was_missed_and_shows_how_things_are) {
  configure("[schedule]\nbackup = \"daily 02:00\"\ndrill = \"after every backup\"\n");
  was_away("backup.main");
  Running daemon(place_, {"serve"});
  await_said(daemon, "backup.main ended well");
  await_said(daemon, "drill.main ended");
  await([&] { return get(daemon, "ready").status == 200; }, "readiness");
  EXPECT_EQ(backup_ids(place_).size(), 1U) << "three nights are one backup";
  EXPECT_EQ(get(daemon, "health").status, 200);
  EXPECT_EQ(get(daemon, "nothing").status, 404);
  const std::string page = get(daemon, "").body;
  EXPECT_NE(page.find("backup.main"), std::string::npos) << page;

  const std::string metrics = get(daemon, "metrics").body;
  overwrite(place_.path("metrics"), metrics);
  const base::Outcome parsed = run(
      {"/usr/bin/python3", "-c",
       "import sys\n"
       "from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n"
       "samples = [s for f in parse(open(sys.argv[1]).read()) for s in f.samples]\n"
       "print([s.value for s in samples if s.name == 'holdfast_job_runs_total'\n"
       "       and s.labels == {'job': 'backup.main', 'outcome': 'success'}])\n",
       place_.path("metrics").string()});
  EXPECT_EQ(parsed.output, "[1]\n") << parsed.errors << metrics;

  expect_clean_end(daemon);
  for (const std::string& text : {daemon.said(), page, metrics}) {
    EXPECT_EQ(text.find(hook_secret), std::string::npos) << "a secret is told: " << text;
  }
  const json state = json::parse(text_of(place_.path("serve.json")));
  EXPECT_EQ(state.at("jobs").at("backup.main").at("status"), 0);
  Running again(place_, {"serve"});
  await([&] { return get(again, "ready").status == 200; }, "readiness");
  EXPECT_EQ(again.said().find("backup.main begins"), std::string::npos) << "it is done";
}

TEST_F(Serve, what_was_done_since_it_was_due_is_not_done_again) {
  configure("[schedule]\nbackup = \"" + every_from("this") + "\"\n");
  was_away("backup.main");
  place_.must({"backup"});  // so did a daemon that was killed before it could note it
  Running daemon(place_, {"serve"});
  await_said(daemon, "backup.main ended well");
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  expect_clean_end(daemon);
}

TEST_F(Serve, begins_wal_receive_again_when_it_is_killed_and_tells_by_webhook_and_command) {
  place_.must({"backup"});
  const fs::path told = place_.path("told");
  std::string text = configured_;
  text.insert(text.find("[serve]"), "command = \"cat >>" + told.string() + "\"\n");
  text.insert(text.find("check_every"), "wal_receive = true\n");
  overwrite(place_.configuration(), text);
  Running daemon(place_, {"serve"});
  await_said(daemon, "wal-receive.main runs");
  const pid_t before = child_that_runs(daemon, "wal receive");
  ASSERT_GT(before, 0);
  ::kill(before, SIGKILL);
  await_said(daemon, "wal-receive.main ended with status 137");
  await([&] { return hook_.count("ends job/wal-receive.main") == 1; }, "the end of the alarm");
  EXPECT_EQ(hook_.count("begins job/wal-receive.main"), 1);
  await(
      [&] {
        return fs::exists(told) && text_of(told).find("wal-receive.main") != std::string::npos;
      },
      "a command");
  const pid_t after = child_that_runs(daemon, "wal receive");
  EXPECT_TRUE(after > 0 && after != before);
  daemon.signal(SIGKILL);
  daemon.wait();
  await([&] { return ::kill(after, 0) != 0; }, "the end of the child, too");
}

TEST_F(Serve, a_configuration_that_is_wrong_changes_nothing) {
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  Running daemon(place_, {"serve"});
  await([&] { return get(daemon, "ready").status == 200; }, "readiness");
  configure("[schedule]\nbackup = \"nightly\"\n");
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("begins daemon/configuration") == 1; }, "an alarm");
  std::string metrics;
  await(
      [&] {
        metrics = get(daemon, "metrics").body;
        return metrics.find("alarm=\"daemon/configuration\"") != std::string::npos;
      },
      "a picture from after that");
  EXPECT_NE(metrics.find("job=\"backup.main\""), std::string::npos) << metrics;
  configure("[schedule]\nexpire = \"daily 02:00\"\n");
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("ends daemon/configuration") == 1; }, "its end");
  await(
      [&] {
        metrics = get(daemon, "metrics").body;
        return metrics.find("job=\"expire.main\"") != std::string::npos &&
               metrics.find("job=\"backup.main\"") == std::string::npos;
      },
      "the new schedule");
  const Result other = place_.holdfast({"serve"});
  EXPECT_EQ(other.status, status_of(base::Code::busy)) << "one daemon has one state";
  expect_clean_end(daemon);
}

TEST_F(Serve, of_two_daemons_one_tells_and_the_other_goes_on_when_it_dies) {
  configure("[objectives]\ndrill_every = \"off\"\n");
  std::optional<Running> first(std::in_place, place_, std::vector<std::string>{"serve"});
  await([&] { return hook_.count("begins status/main/backup") == 1; }, "the first alarm");
  std::string text = configured_ + "[objectives]\ndrill_every = \"off\"\n";
  text.replace(text.find("serve.json"), 10, "other.json");
  overwrite(place_.configuration(), text);
  Running second(place_, {"serve"});
  await([&] { return get(second, "ready").status == 200; }, "readiness");
  first->signal(SIGKILL);
  first->wait();
  place_.must({"backup"});
  await([&] { return hook_.count("ends status/main/backup") == 1; }, "the end, told by the other");
  EXPECT_EQ(hook_.count("begins status/main/backup"), 1) << hook_.all();
  expect_clean_end(second);
}

TEST_F(Serve, a_repository_that_was_down_is_behind_until_it_has_what_it_missed_and_no_other_twice) {
  const fs::path offsite = place_.path("offsite");
  configured_ += fmt::format("[repository.offsite]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
                             offsite.string(), place_.path("offsite.key").string());
  configure("");
  place_.must({"init"});
  place_.must({"backup"});
  fs::rename(offsite, place_.path("away"));
  source_->sql("INSERT INTO t VALUES (1)");
  place_.archive_all(*source_);  // one copy is enough
  configure("[schedule]\nbackup = \"" + every_from("next") + "\"\n");
  was_away("backup.main");
  Running daemon(place_, {"serve"});
  await([&] { return hook_.count("begins job/backup.main") == 1; }, "a backup that failed in one");
  await([&] { return hook_.count("begins status/main/offsite/repository") == 1; }, "which one");
  await_said(daemon, "backup.main is tried again in 10 s");
  const auto ids = [&](const std::string& repository) {
    const Result listed = place_.must({"list", "--json", "--repository", repository});
    return listed.json().at("backups").size();
  };
  EXPECT_EQ(ids("local"), 2U) << "what is done is not done again when the other one is tried again";
  fs::remove_all(offsite);  // the archiver may have been in the middle of a file
  fs::rename(place_.path("away"), offsite);
  await([&] { return hook_.count("begins status/main/offsite/behind") == 1; }, "behind");
  await([&] { return hook_.count("ends status/main/offsite/repository") == 1; }, "it is back");
  daemon.signal(SIGHUP);  // tries again what waits
  await([&] { return hook_.count("ends job/backup.main") == 1; }, "the other backup");
  await([&] { return hook_.count("ends status/main/offsite/behind") == 1; }, "the WAL");
  EXPECT_EQ(ids("local"), 2U);
  EXPECT_EQ(ids("offsite"), 2U);
  EXPECT_EQ(hook_.count("begins job/backup.main"), 1) << hook_.all();
  expect_clean_end(daemon);
}

TEST_F(Serve, a_run_that_takes_too_long_is_stopped_and_the_alarm_goes_with_the_job) {
  std::string text = configured_;
  const std::size_t at = text.find("key_file = \"");
  const std::size_t begin = text.find('"', at) + 1;
  const std::string file = text.substr(begin, text.find('"', begin) - begin);
  text.replace(at, text.find('\n', at) - at, "key_command = \"sleep 1; cat '" + file + "'\"");
  text.insert(text.find("[serve]"), "command = \"exit 3\"\n");
  const auto with = [&](const std::string& schedule) {
    overwrite(place_.configuration(), text + "[schedule]\nlimit = \"500ms\"\n" + schedule);
  };
  const std::string backup = "backup = \"daily 02:00\"\ndrill = \"after every backup\"\n";
  was_away("backup.main", {"expire.main", "drill.main"});
  with(backup + "expire = \"daily 02:00\"\n");
  std::optional<Running> daemon(std::in_place, place_, std::vector<std::string>{"serve"});
  await([&] { return hook_.count("begins job/backup.main") == 1; }, "an alarm");
  await([&] { return hook_.count("begins job/expire.main") == 1; }, "another one");
  await([&] { return hook_.count("begins daemon/channel/command") == 1; }, "a channel that fails");
  EXPECT_NE(daemon->said().find("it did not end within 500 ms"), std::string::npos)
      << daemon->said();
  const auto looked = [&] {
    const std::string metrics = get(*daemon, "metrics").body;
    const std::string name = "holdfast_status_timestamp_seconds{cluster=\"main\"} ";
    const std::size_t found = metrics.find(name);
    return found == std::string::npos ? 0 : std::stol(metrics.substr(found + name.size()));
  };
  const long then = base::now().time_since_epoch() / std::chrono::seconds(1);
  await([&] { return looked() > then + 2; }, "all who look at the key");
  EXPECT_EQ(daemon->said().find("drill.main begins"), std::string::npos) << "after no backup";
  with(backup);
  daemon->signal(SIGHUP);
  await([&] { return hook_.count("ends job/expire.main") == 1; }, "a job that is gone");
  EXPECT_EQ(hook_.count("ends job/backup.main"), 0);
  expect_clean_end(*daemon);
  with("");
  daemon.emplace(place_, std::vector<std::string>{"serve"});
  await([&] { return hook_.count("ends job/backup.main") == 1; }, "gone while none ran");
  expect_clean_end(*daemon);
}

TEST_F(Serve, tells_of_slots_in_danger_and_of_pins_that_end) {
  place_.must({"backup"});
  const std::string backup = backup_ids(place_).at(0);
  const std::string pin =
      place_.must({"pin", backup, "--for", "2d", "--reason", "audit", "--json"}).json().at("pin");
  source_->sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
  source_->sql("ALTER SYSTEM SET max_wal_size = '32MB'");
  source_->sql("SELECT pg_reload_conf()");
  source_->sql("SELECT pg_create_physical_replication_slot('lagging', true)");
  Running daemon(place_, {"serve"});
  await([&] { return hook_.count("begins status/main/pin:" + pin) == 1; }, "the reminder");
  place_.must({"pin", backup, "--for", "30d", "--reason", "audit"});
  await([&] { return hook_.count("ends status/main/pin:" + pin) == 1; }, "it is pinned for longer");
  const auto wal_status = [&] {
    return source_->sql("SELECT wal_status FROM pg_replication_slots");
  };
  await(
      [&] {
        source_->sql("INSERT INTO t VALUES (1)");
        source_->sql("SELECT pg_switch_wal()");
        return wal_status() == "unreserved";
      },
      "a slot in danger");
  await([&] { return hook_.count("begins status/main/slot:lagging") == 1; }, "the danger");
  source_->sql("CHECKPOINT");
  ASSERT_EQ(wal_status(), "lost");
  await([&] { return hook_.count("begins status/main/lost slot:lagging") == 1; }, "the loss");
  await([&] { return hook_.count("ends status/main/slot:lagging") == 1; }, "no danger any more");
  source_->sql("SELECT pg_drop_replication_slot('lagging')");
  await([&] { return hook_.count("ends status/main/lost slot:lagging") == 1; }, "its end");
  expect_clean_end(daemon);
}

TEST_F(Serve, survives_a_server_and_a_repository_that_are_away_and_never_spins) {
  std::string text = configured_ + "[schedule]\nbackup = \"daily 02:00\"\n";
  text.insert(text.find("check_every"), "wal_receive = true\n");
  overwrite(place_.configuration(), text);
  source_->stop();
  fs::rename(place_.repository(), place_.path("away"));
  was_away("backup.main");
  Running daemon(place_, {"serve"});
  for (const char* each : {"begins job/backup.main", "begins job/wal-receive.main",
                           "begins status/main/server", "begins status/main/repository"}) {
    await([&] { return hook_.count(each) == 1; }, each);
  }
  await_said(daemon, "is begun again in 4 s");
  EXPECT_FALSE(daemon.over());
  fs::rename(place_.path("away"), place_.repository());
  start_again(place_, *source_);
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("ends job/backup.main") == 1; }, "the backup");
  await([&] { return hook_.count("ends status/main/server") == 1; }, "the server");
  EXPECT_EQ(backup_ids(place_).size(), 1U);
  EXPECT_EQ(hook_.count("begins status/main/server"), 1) << hook_.all();
  expect_clean_end(daemon);
}

TEST_F(Serve, tells_systemd_how_it_is) {
  const fs::path path = place_.path("notify");
  const base::Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  place_.give_to_server_user(path);
  std::vector<std::string> told;
  const auto hears = [&](const std::string& word) {
    std::array<char, 256> buffer{};
    ssize_t got = 0;
    while ((got = ::recv(socket.get(), buffer.data(), buffer.size(), 0)) > 0) {
      told.emplace_back(buffer.data(), static_cast<std::size_t>(got));
    }
    return std::ranges::find(told, word) != told.end();
  };
  Running daemon(place_, {"serve"},
                 {{"NOTIFY_SOCKET", path.string()}, {"WATCHDOG_USEC", "1000000"}});
  await([&] { return hears("READY=1"); }, "READY");
  await([&] { return hears("WATCHDOG=1"); }, "WATCHDOG");
  daemon.signal(SIGHUP);
  await([&] { return hears("RELOADING=1"); }, "RELOADING");
  expect_clean_end(daemon);
  EXPECT_TRUE(hears("STOPPING=1"));
  EXPECT_EQ(told.front(), "READY=1");
  EXPECT_EQ(told.back(), "STOPPING=1");
}

TEST_F(Serve, the_unit_that_is_shipped_is_one_for_systemd) {
  if (run({"/bin/sh", "-c", "command -v systemd-analyze"}).status != 0) {
    GTEST_SKIP() << "systemd-analyze is not installed";
  }
  std::string unit = text_of(fs::path(HOLDFAST_SOURCE) / "docs/ops/holdfast.service");
  const std::string program = "/usr/local/bin/holdfast";
  unit.replace(unit.find(program), program.size(), "/bin/true");
  overwrite(place_.path("holdfast.service"), unit);
  const base::Outcome outcome =
      run({"systemd-analyze", "verify", place_.path("holdfast.service").string()});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(outcome.errors.find("holdfast.service"), std::string::npos) << outcome.errors;
}

}  // namespace
}  // namespace holdfast::tests
