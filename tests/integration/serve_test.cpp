// `holdfast serve` with real servers: what is due is done once, what dies is begun again, what is
// wrong is told, and the end is clean.

#include <sys/socket.h>
#include <sys/un.h>

#include "base/http.h"
#include "faults/faults.h"
#include "harness/witness.h"
#include "service/http_listener.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;

constexpr const char* secret = "s3cret-of-the-hook";

/// Collects what a webhook is told.
class Hook {
 public:
  std::string url() const { return "http://" + listener_.address().text() + "/" + secret; }
  /// How often: "begins status/main/drill".
  long count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return std::ranges::count(told_, what);
  }
  std::string all() {
    const std::lock_guard lock(mutex_);
    std::string text;
    for (const std::string& each : told_) text += each + "\n";
    return text;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> told_;
  service::HttpListener listener_{service::find_address("127.0.0.1:0"),
                                  [this](const service::HttpRequest& request) {
                                    const json document = json::parse(request.body);
                                    const std::lock_guard lock(mutex_);
                                    told_.push_back(document.at("event").get<std::string>() + " " +
                                                    document.at("alarm").get<std::string>());
                                    return service::HttpResponse();
                                  }};
};

/// The processes that another one has started and that still run.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  for (const auto& thread : fs::directory_iterator(fmt::format("/proc/{}/task", parent))) {
    std::istringstream in(text_of(thread.path() / "children"));
    for (pid_t each = 0; in >> each;) found.push_back(each);
  }
  return found;
}

pid_t child_that_runs(const Running& daemon, const std::string& words) {
  for (const pid_t each : children_of(daemon.pid())) {
    std::string line = text_of(fmt::format("/proc/{}/cmdline", each));
    std::ranges::replace(line, '\0', ' ');
    if (line.find(words) != std::string::npos) return each;
  }
  return 0;
}

base::Outcome run(std::vector<std::string> argv) {
  base::Command command;
  command.argv = std::move(argv);
  return base::run(command);
}

class Serve : public testing::Test {
 protected:
  Serve() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t (id int)");
    configured_ = text_of(place_.configuration()) + "\n[alert]\nwebhook = \"" + hook_.url() +
                  "\"\n[serve]\ncheck_every = \"1s\"\nlisten = \"127.0.0.1:0\"\n"
                  "state = \"serve.json\"\n";
    configure("");
  }
  void configure(const std::string& more) const {
    overwrite(place_.configuration(), configured_ + more);
  }
  /// A daemon that ran three days ago, and since then none.
  void was_away(const std::string& job) const {
    const std::string then = base::to_iso(base::now() - std::chrono::days(3));
    const json record = {{"known_since", then},
                         {"slot", nullptr},
                         {"succeeded", nullptr},
                         {"ended", nullptr},
                         {"status", nullptr}};
    const json state = {{"version", 1},
                        {"jobs", {{job, record}}},
                        {"alarms", json::object()},
                        {"outbox", json::array()},
                        {"next_message", 1}};
    base::replace_file(place_.path("serve.json"), base::view(state.dump()), 0600);
    place_.give_to_server_user(place_.path("serve.json"));
  }
  static void await_said(Running& daemon, const std::string& what) {
    await(
        [&] {
          if (daemon.over()) throw std::runtime_error("it ended: " + daemon.said());
          return daemon.said().find(what) != std::string::npos;
        },
        what + " in " + daemon.said());
  }
  static std::string url(Running& daemon) {
    const std::string before = "shows how things are at ";
    await_said(daemon, before);
    const std::string said = daemon.said();
    const std::size_t at = said.find(before) + before.size();
    return said.substr(at, said.find('\n', at) - at);
  }
  static base::HttpAnswer get(Running& daemon, const std::string& path) {
    return base::http_get(url(daemon) + path, std::chrono::seconds(5));
  }
  static void expect_clean_end(Running& daemon) {
    const std::vector<pid_t> children = children_of(daemon.pid());
    daemon.signal(SIGTERM);
    EXPECT_EQ(daemon.wait_for(std::chrono::seconds(40)), 0) << daemon.said();
    for (const pid_t each : children) EXPECT_NE(::kill(each, 0), 0) << each << " still runs";
  }

  Place place_;
  Hook hook_;
  std::unique_ptr<Cluster> source_;
  std::string configured_;
};

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
    EXPECT_EQ(text.find(secret), std::string::npos) << "a secret is told: " << text;
  }
  const json state = json::parse(text_of(place_.path("serve.json")));
  EXPECT_EQ(state.at("jobs").at("backup.main").at("status"), 0);
  Running again(place_, {"serve"});
  await([&] { return get(again, "ready").status == 200; }, "readiness");
  EXPECT_EQ(again.said().find("backup.main begins"), std::string::npos) << "it is done";
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
  expect_clean_end(daemon);
}

TEST_F(Serve, a_configuration_that_is_wrong_changes_nothing) {
  configure("[schedule]\nbackup = \"daily 02:00\"\n");
  Running daemon(place_, {"serve"});
  await([&] { return get(daemon, "ready").status == 200; }, "readiness");
  configure("[schedule]\nbackup = \"nightly\"\n");
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("begins daemon/configuration") == 1; }, "an alarm");
  EXPECT_NE(get(daemon, "metrics").body.find("job=\"backup.main\""), std::string::npos);
  configure("[schedule]\nexpire = \"daily 02:00\"\n");
  daemon.signal(SIGHUP);
  await([&] { return hook_.count("ends daemon/configuration") == 1; }, "its end");
  await(
      [&] {
        const std::string metrics = get(daemon, "metrics").body;
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

TEST_F(Serve, survives_a_server_and_a_repository_that_are_away_and_never_spins) {
  place_.must({"backup"});
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
  EXPECT_EQ(backup_ids(place_).size(), 2U);
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
