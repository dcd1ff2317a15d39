// `recover`: the runbook of a disaster, as a machine that survives its own death.

#include <signal.h>

#include <fstream>

#include "base/error.h"
#include "harness/instant.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

int status_of(Code code) {
  return base::info(code).exit_status;
}

const std::vector<std::string> steps = {
    "fence", "target",      "provision", "secrets", "files", "restore", "replay",    "prove",
    "start", "environment", "deploy",    "ready",   "proof", "smoke",   "reconnect", "backup"};

/// A cluster that is served where its own configuration says, as users' clusters are.
class Recover : public ::testing::TestWithParam<int> {
 protected:
  Recover() : cluster_(place_.cluster(GetParam())) {
    std::ofstream file(cluster_->data_directory() / "postgresql.conf", std::ios::app);
    file << fmt::format("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\n",
                        cluster_->server().socket_directory().string());
    file.close();
    cluster_->sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) i");
    place_.must({"backup"});
    cluster_->sql("INSERT INTO orders SELECT i FROM generate_series(1001, 1500) i");
  }
  ~Recover() override {
    for (const fs::path& each : {data(), place_.path("elsewhere")}) {
      if (fs::exists(each / "postmaster.pid")) {
        run_tool(cluster_->installation(), "pg_ctl",
                 {"-D", each.string(), "-m", "immediate", "-w", "stop"});
      }
    }
    // What was mounted, also under the names that recoveries gave it.
    for (const auto& each : fs::directory_iterator(data().parent_path())) {
      const auto place = operations::instant_place(each.path());
      if (operations::serving_process(place)) operations::unmount_instant(place);
    }
  }
  fs::path data() const { return cluster_->data_directory(); }

  void configure(const std::string& text) const {
    static const std::string mark = "\n# recover\n";
    std::string old = text_of(place_.configuration());
    old.resize(std::min(old.find(mark), old.size()));
    overwrite(place_.configuration(), old + mark + text);
  }
  /// On whatever serves at the cluster's own place.
  std::string sql(const std::string& statement) const {
    return postgres::Session(cluster_->connection()).value(statement);
  }
  Result recover(std::vector<std::string> arguments = {"--yes"}) const {
    arguments.insert(arguments.begin(), "recover");
    return place_.holdfast(arguments);
  }
  fs::path journal() const {
    fs::path found;
    for (const auto& each : fs::directory_iterator(place_.path("recoveries"))) {
      if (each.is_directory() && each.path() > found) found = each.path();
    }
    return found / "journal.json";
  }
  std::string state_of(const std::string& step) const {
    const json document = json::parse(text_of(journal()));
    for (const json& each : document.at("steps")) {
      if (each.at("step") == step) return each.at("state");
    }
    return "";
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

INSTANTIATE_TEST_SUITE_P(On, Recover, ::testing::Values(15, 17),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(Recover, brings_everything_back_in_its_place_on_a_new_timeline) {
  const std::string before = digest(*cluster_);
  const Result done = recover({"--yes", "--json"});
  ASSERT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(digest(*cluster_), before) << "nothing was lost of a server that was only stopped";
  const json document = done.json();
  EXPECT_EQ(document.at("verdict"), "pass");
  EXPECT_EQ(document.at("timeline"), 2);
  EXPECT_EQ(document.at("end"), "recovered");
  EXPECT_TRUE(document.at("rto_ms").is_number());
  EXPECT_TRUE(fs::exists(document.at("old_directory").get<std::string>() + "/PG_VERSION"));
  const json backups = place_.must({"list", "--json"}).json().at("backups");
  EXPECT_EQ(backups.back().at("id"), document.at("new_backup"));
  EXPECT_EQ(backups.back().at("timeline"), 2);
  EXPECT_EQ(sql("SHOW archive_mode"), "on");
  place_.must({"drill", "verify"});
  // The next disaster.
  sql("INSERT INTO public.orders VALUES (0) RETURNING id");
  const Result again = recover({"--yes", "--json"});
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(again.json().at("timeline"), 3);
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1501");
}

using RecoverOnce = Recover;
INSTANTIATE_TEST_SUITE_P(On, RecoverOnce, ::testing::Values(15),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(RecoverOnce, plans_without_touching_anything_and_asks_before_it_begins) {
  const Result plan = recover({"--plan"});
  EXPECT_EQ(plan.status, 0) << plan.errors;
  for (const std::string& step : steps)
    EXPECT_NE(plan.output.find(step), std::string::npos) << step;
  const Result asked = recover({});
  EXPECT_EQ(asked.status, status_of(Code::refused)) << asked.errors;
  EXPECT_NE(asked.errors.find("--yes"), std::string::npos);
  EXPECT_FALSE(fs::exists(place_.path("recoveries")));
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
  EXPECT_EQ(recover({"--resume"}).status, status_of(Code::not_found));
  EXPECT_EQ(recover({"--undo"}).status, status_of(Code::not_found));
  EXPECT_EQ(recover({"--yes", "--skip", "prove"}).status, status_of(Code::usage));
  EXPECT_EQ(recover({"--resume", "--to", "latest"}).status, status_of(Code::usage))
      << "the target is in the journal: another one must not be left out silently";
}

TEST_P(RecoverOnce, begins_nothing_when_there_is_nothing_to_restore) {
  EXPECT_EQ(recover({"--yes", "--to", "2001-01-01 00:00:00+00"}).status,
            status_of(Code::outside_window));
  fs::rename(place_.repository(), place_.path("gone"));
  EXPECT_NE(recover().status, 0);
  fs::rename(place_.path("gone"), place_.repository());
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500") << "the old server was touched";
}

TEST_P(RecoverOnce, comes_to_just_before_an_event) {
  cluster_->sql("DROP TABLE orders");
  place_.archive_all(*cluster_);
  const json events = place_.must({"events", "--json", "--since", "2020-01-01 00:00:00+00"}).json();
  std::string event;
  for (const json& each : events.at("events")) {
    if (each.at("kind").get<std::string>().starts_with("drop") &&
        each.at("restore_to").is_string()) {
      event = each.at("restore_to");
    }
  }
  ASSERT_FALSE(event.empty()) << events.dump(1);
  const Result done = recover({"--yes", "--to", event, "--exclusive"});
  ASSERT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
}

TEST_P(RecoverOnce, killed_after_each_step_goes_on_to_the_same_end) {
  const std::string before = digest(*cluster_);
  configure("[recover.command]\nprovision = \"true\"\nreconnect = \"echo x >> reconnected\"\n");
  const fs::path log = place_.path("log");
  std::vector<std::string> line = {"--yes"};
  for (const std::string& step : steps) {
    base::Command command;
    command.argv = {holdfast_binary().string(), "--config", place_.configuration().string(),
                    "recover"};
    command.argv.insert(command.argv.end(), line.begin(), line.end());
    command.directory = place_.path();
    command.user = base::running_as_root() ? postgres::server_user() : std::nullopt;
    base::Child child(command, log);
    eventually("step " + step + " has ended", [&] {
      if (!fs::exists(place_.path("recoveries")) || !fs::exists(journal())) return false;
      const std::string state = state_of(step);
      return state == "done" || state == "skipped" || child.finished();
    });
    child.signal(SIGKILL);
    child.wait();
    line = {"--resume"};
  }
  const Result last = recover({"--resume"});
  // Its last step may have been done before it was killed, and all be over.
  EXPECT_TRUE(last.status == 0 || last.status == status_of(Code::refused)) << last.errors;
  EXPECT_EQ(json::parse(text_of(journal())).at("end"), "recovered");
  EXPECT_EQ(digest(*cluster_), before);
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000002");
  place_.must({"drill", "verify"});
  place_.must({"verify"});
}

TEST_P(RecoverOnce, that_fails_in_any_step_says_so_and_goes_on_once_it_is_mended) {
  const std::string before = digest(*cluster_);
  overwrite(place_.path("env"), "DATABASE_URL='postgres://app:pa$$w0rd-canary@old/app'\n");
  overwrite(place_.path("smoke.toml"),
            "url = \"http://127.0.0.1:1\"\nrate = 1\nduration = \"1s\"\n"
            "[[request]]\nname = \"a\"\npath = \"/\"\n");
  place_.give_to_server_user(place_.path("env"));
  // All of them fail, each by its own means or by a command.
  const std::vector<std::pair<std::string, std::string>> failing = {
      {"fence", "exit 3"},       {"target", "exit 3"},          {"provision", "exit 3"},
      {"secrets", "exit 3"},     {"files", "exit 3"},           {"restore", "exit 3"},
      {"replay", "exit 3"},      {"prove", "exit 3"},           {"start", "exit 3"},
      {"environment", "exit 3"}, {"deploy", "cat env; exit 3"}, {"ready", "exit 3"},
      {"proof", "exit 3"},       {"smoke", "sleep 20"},         {"reconnect", "exit 3"},
      {"backup", "exit 3"}};
  std::vector<std::string> line = {"--yes", "--full"};
  for (const auto& [step, command] : failing) {
    configure(
        fmt::format("[recover]\nenvironment_file = \"env\"\ndatabase_host = \"new\"\n"
                    "[recover.limit]\nsmoke = \"1s\"\n"
                    "[recover.command]\n{} = \"{}\"\n",
                    step, command));
    const Result failed = recover(line);
    EXPECT_EQ(failed.status, status_of(Code::check_failed)) << step << ": " << failed.errors;
    EXPECT_NE(failed.errors.find("step " + step + " failed"), std::string::npos) << failed.errors;
    EXPECT_NE(failed.errors.find("--resume"), std::string::npos) << failed.errors;
    EXPECT_NE(failed.errors.find("--undo"), std::string::npos) << failed.errors;
    EXPECT_EQ(failed.errors.find("w0rd-canary"), std::string::npos) << failed.errors;
    EXPECT_EQ(state_of(step), "failed");
    EXPECT_NE(place_.holdfast({"status"}).output.find("has not ended: it is at " + step),
              std::string::npos)
        << "an alarm must say that nobody went on";
    line = {"--resume"};
    if (step == "fence") {
      EXPECT_EQ(recover().status, status_of(Code::conflict)) << "one is open";
    }
  }
  configure("[recover]\nenvironment_file = \"env\"\ndatabase_host = \"new\"\n");
  const Result done = recover({"--resume"});
  EXPECT_EQ(done.status, 0) << done.errors << done.output;
  EXPECT_EQ(place_.holdfast({"status"}).output.find("has not ended"), std::string::npos);
  EXPECT_EQ(digest(*cluster_), before);
  EXPECT_EQ(text_of(place_.path("env")),
            "DATABASE_URL='postgres://app:pa$$w0rd-canary@new:5432/app'\n");
}

TEST_P(RecoverOnce, undone_after_the_cut_over_leaves_everything_as_it_was) {
  const std::string before = digest(*cluster_);
  overwrite(place_.path("env"), "A=1\nDATABASE_URL=postgres://app@old/app # here\n");
  place_.give_to_server_user(place_.path("env"));
  configure(
      "[recover]\nenvironment_file = \"env\"\ndatabase_host = \"new\"\n"
      "[recover.command]\ndeploy = \"cat env >> deployed\"\nproof = \"true\"\n"
      "reconnect = \"echo on >> tunnel\"\n[recover.undo]\nreconnect = \"echo off >> tunnel\"\n");
  ASSERT_EQ(recover().status, 0);
  EXPECT_NE(text_of(place_.path("env")).find("@new:5432/app"), std::string::npos);
  sql("INSERT INTO public.orders VALUES (-1) RETURNING id");
  const Result undone = recover({"--undo"});
  ASSERT_EQ(undone.status, 0) << undone.errors;
  EXPECT_EQ(text_of(place_.path("env")), "A=1\nDATABASE_URL=postgres://app@old/app # here\n");
  EXPECT_EQ(digest(*cluster_), before);
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000001");
  EXPECT_EQ(text_of(place_.path("tunnel")), "on\noff\n");
  EXPECT_NE(text_of(place_.path("deployed")).rfind("@old/app"), std::string::npos);
  EXPECT_EQ(recover({"--undo"}).status, status_of(Code::refused));
  place_.must({"drill", "verify"});
  bool kept = false;
  for (const auto& each : fs::directory_iterator(data().parent_path())) {
    kept = kept || each.path().string().find(".undone-") != std::string::npos;
  }
  EXPECT_TRUE(kept) << "what was committed meanwhile must not be thrown away";
}

/// Whoever runs the tests mounts; as root the server is still the server's user's.
TEST_P(RecoverOnce, instantly_serves_at_once_survives_its_death_and_can_be_taken_back) {
  NEEDS_FUSE();
  const std::string before = digest(*cluster_);
  const operations::InstantPlace mounted = operations::instant_place(data());
  // Killed behind the mount: what was mounted is used again, or made anew.
  base::Command command;
  command.argv = {holdfast_binary().string(),
                  "--config",
                  place_.configuration().string(),
                  "recover",
                  "--instant",
                  "--yes"};
  command.directory = place_.path();
  {
    base::Child child(command, place_.path("log"));
    eventually("it replays", [&] {
      return child.finished() || (fs::exists(place_.path("recoveries")) && fs::exists(journal()) &&
                                  state_of("replay") != "pending");
    });
    child.signal(SIGKILL);
    child.wait();
  }
  const auto serving = operations::serving_process(mounted);
  if (serving) ::kill(*serving, SIGKILL);
  const Result done = holdfast_as_self(place_, {"recover", "--resume"});
  ASSERT_EQ(done.status, 0) << done.errors << done.output;
  EXPECT_NE(done.output.find("settle"), std::string::npos) << "what is to be done later is said";
  ASSERT_TRUE(operations::serving_process(mounted)) << "it is no mount";
  EXPECT_EQ(digest(*cluster_), before);
  sql("INSERT INTO public.orders VALUES (-1) RETURNING id");
  // The next disaster, on what is still mounted.
  const std::string later = digest(*cluster_);
  const Result again = holdfast_as_self(place_, {"recover", "--instant", "--yes", "--json"});
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(again.json().at("timeline"), 3);
  EXPECT_EQ(digest(*cluster_), later);
  // And back to the first mount.
  const Result undone = holdfast_as_self(place_, {"recover", "--undo"});
  ASSERT_EQ(undone.status, 0) << undone.errors;
  EXPECT_EQ(digest(*cluster_), later);
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000002");
}

TEST_P(RecoverOnce, does_not_open_a_cluster_that_is_not_what_it_should_be) {
  configure(
      "[[drill.check]]\nname = \"orders\"\ndatabase = \"postgres\"\n"
      "sql = \"SELECT count(*) FROM public.orders\"\nexpect = \"7\"\n");
  const Result failed = recover();
  EXPECT_EQ(failed.status, status_of(Code::check_failed)) << failed.errors;
  EXPECT_FALSE(postgres::somebody_answers(cluster_->connection())) << "it serves what is wrong";
  const Result forced = recover({"--resume", "--skip", "prove"});
  EXPECT_EQ(forced.status, status_of(Code::check_failed)) << "it serves, and is not proven";
  EXPECT_EQ(json::parse(text_of(journal())).at("end"), "recovered");
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
}

TEST_P(RecoverOnce, will_not_go_on_while_the_old_cluster_still_answers_elsewhere) {
  // As if data_directory were another machine's.
  const std::string text = text_of(place_.configuration());
  std::string other = text;
  const std::size_t at = other.find(data().string());
  ASSERT_NE(at, std::string::npos);
  other.replace(at, data().string().size(), place_.path("elsewhere").string());
  overwrite(place_.configuration(), other);
  const Result refused = recover();
  EXPECT_EQ(refused.status, status_of(Code::refused)) << refused.errors;
  EXPECT_NE(refused.errors.find("still answers"), std::string::npos) << refused.errors;
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
  const Result undone = recover({"--undo"});
  EXPECT_EQ(undone.status, 0) << undone.errors;
}

}  // namespace
}  // namespace holdfast::tests
