// `recover`: the runbook of a disaster, as a machine that survives its own death.

#include <signal.h>

#include <fstream>

#include "harness/recover_world.h"

namespace holdfast::tests {
namespace {

int status_of(Code code) {
  return base::info(code).exit_status;
}

const std::vector<std::string> steps = {
    "fence", "target",      "provision", "secrets", "files", "restore", "replay",    "prove",
    "start", "environment", "deploy",    "ready",   "proof", "smoke",   "reconnect", "backup"};

class Recover : public RecoverWorld, public ::testing::WithParamInterface<int> {
 protected:
  Recover() : RecoverWorld(GetParam()) {}
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
  EXPECT_EQ(recover({"--resume", "--yes"}).status, status_of(Code::not_found));
  EXPECT_EQ(recover({"--undo", "--yes"}).status, status_of(Code::not_found));
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
    line = {"--resume", "--yes"};
  }
  const Result last = recover({"--resume", "--yes"});
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
    line = {"--resume", "--yes"};
    if (step == "fence") {
      EXPECT_EQ(recover().status, status_of(Code::conflict)) << "one is open";
    }
  }
  configure("[recover]\nenvironment_file = \"env\"\ndatabase_host = \"new\"\n");
  const Result done = recover({"--resume", "--yes"});
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
  const Result undone = recover({"--undo", "--yes"});
  ASSERT_EQ(undone.status, 0) << undone.errors;
  EXPECT_EQ(text_of(place_.path("env")), "A=1\nDATABASE_URL=postgres://app@old/app # here\n");
  EXPECT_EQ(digest(*cluster_), before);
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000001");
  EXPECT_EQ(text_of(place_.path("tunnel")), "on\noff\n");
  EXPECT_NE(text_of(place_.path("deployed")).rfind("@old/app"), std::string::npos);
  EXPECT_EQ(recover({"--undo", "--yes"}).status, status_of(Code::refused));
  place_.must({"drill", "verify"});
  bool kept = false;
  for (const auto& each : fs::directory_iterator(data().parent_path())) {
    kept = kept || each.path().string().find(".undone-") != std::string::npos;
  }
  EXPECT_TRUE(kept) << "what was committed meanwhile must not be thrown away";
}

TEST_P(RecoverOnce, killed_in_the_middle_of_promotion_goes_on_to_the_same_end) {
  const std::string before = digest(*cluster_);
  configure("[recover.command]\nreplay = \"exit 3\"\n");
  ASSERT_EQ(recover().status, status_of(Code::check_failed));
  // What PostgreSQL leaves there: all is replayed, the signal is removed, the new timeline's first
  // segment is made; its history is not written, and the control file knows nothing of it.
  overwrite(data() / "standby.signal", "");
  place_.give_to_server_user(data() / "standby.signal");
  const auto run = [&](const std::vector<std::string>& arguments) {
    const Result result = run_tool(cluster_->installation(), "pg_ctl", arguments);
    EXPECT_EQ(result.status, 0) << result.errors << result.output;
  };
  const std::string log = (data() / "log.standby").string();
  run({"-D", data().string(), "-w", "-l", log, "-o", "-c archive_mode=off", "start"});
  postgres::Session(cluster_->connection()).query("CHECKPOINT");
  run({"-D", data().string(), "-w", "-m", "immediate", "stop"});
  fs::remove(data() / "standby.signal");
  fs::remove(data() / "recovery.signal");
  std::string last;
  for (const auto& each : fs::directory_iterator(data() / "pg_wal")) {
    const std::string name = each.path().filename();
    if (name.starts_with("00000001") && name.size() == 24) last = std::max(last, name);
  }
  ASSERT_FALSE(last.empty());
  const fs::path next = data() / "pg_wal" / ("00000002" + last.substr(8));
  fs::copy_file(data() / "pg_wal" / last, next);
  place_.give_to_server_user(next);

  configure("");
  const Result done = recover({"--resume", "--yes"});
  ASSERT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(digest(*cluster_), before);
  EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000002");
}

/// Forbidden DDL: by a trigger, and by a setting of the database.
TEST_P(RecoverOnce, needs_no_ddl_and_leaves_none) {
  cluster_->sql(
      "CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
      "RAISE EXCEPTION 'no DDL here'; END $$");
  cluster_->sql("CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no_ddl()");
  cluster_->sql("ALTER DATABASE postgres SET default_transaction_read_only = on");
  const Result done = recover({"--yes", "--json"});
  ASSERT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(done.json().at("verdict"), "pass");
  EXPECT_EQ(sql("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'holdfast'"), "0");
  EXPECT_EQ(sql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'"), "0");
  bool looked = false;
  const json record = done.json();
  for (const json& check : record.at("checks")) {
    if (check.at("name") != "tables and indexes (amcheck)") continue;
    looked = true;
    EXPECT_EQ(check.at("outcome"), "passed") << check.dump();
  }
  EXPECT_TRUE(looked) << done.output;
}

TEST_P(RecoverOnce, goes_on_and_back_only_when_it_is_told_to) {
  configure("[recover.command]\nreconnect = \"exit 3\"\n");
  ASSERT_EQ(recover().status, status_of(Code::check_failed));
  const auto asked = [&](const std::string& way, const std::string& action) {
    const std::string before = text_of(journal());
    const Result plan = recover({"--plan", way});
    EXPECT_EQ(plan.status, 0) << plan.errors;
    EXPECT_NE(plan.output.find(action), std::string::npos) << plan.output;
    const Result refused = recover({way});
    EXPECT_EQ(refused.status, status_of(Code::refused)) << refused.errors;
    EXPECT_EQ(refused.output, plan.output) << "who is asked must see what it is about";
    EXPECT_NE(refused.errors.find("--yes"), std::string::npos) << refused.errors;
    EXPECT_EQ(text_of(journal()), before);
    EXPECT_EQ(sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), "00000002");
  };
  asked("--resume", "run: exit 3");
  asked("--undo", "STOP the restored server");
  const Result undone = recover({"--undo", "--yes"});
  EXPECT_EQ(undone.status, 0) << undone.errors;
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
}

TEST_P(RecoverOnce, taken_back_before_anything_was_done_leaves_the_server_alone) {
  const std::string running = text_of(data() / "postmaster.pid");
  configure("[recover.command]\nfence = \"exit 3\"\n");
  ASSERT_EQ(recover().status, status_of(Code::check_failed));
  const Result undone = recover({"--undo", "--yes"});
  EXPECT_EQ(undone.status, 0) << undone.errors;
  EXPECT_EQ(undone.output.find("none runs"), std::string::npos) << undone.output;
  EXPECT_EQ(text_of(data() / "postmaster.pid"), running);
  EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500");
}

TEST_P(RecoverOnce, does_not_go_back_to_what_cannot_start) {
  ASSERT_EQ(recover().status, 0);
  const fs::path old = json::parse(text_of(journal())).at("old_directory").get<std::string>();
  const fs::path elsewhere = place_.path("lost");
  const std::string segment = [&] {
    const auto control = postgres::read_control_file(old).control;
    return postgres::file_name(
        postgres::segment_at(control.timeline, control.redo, control.wal_segment_size),
        control.wal_segment_size);
  }();
  for (const std::string& lost : {std::string("global/pg_control"), std::string("PG_VERSION"),
                                  std::string("base"), "pg_wal/" + segment}) {
    fs::rename(old / lost, elsewhere);
    const std::string before = text_of(journal());
    const Result refused = recover({"--undo", "--yes"});
    EXPECT_EQ(refused.status, status_of(Code::refused)) << lost << refused.errors;
    EXPECT_NE(refused.errors.find(fs::path(lost).filename().string()), std::string::npos)
        << refused.errors;
    EXPECT_EQ(text_of(journal()), before);
    EXPECT_EQ(sql("SELECT count(*) FROM public.orders"), "1500") << "what served was stopped";
    fs::rename(elsewhere, old / lost);
  }
  // Given up by hand: then it is an end, and another one can begin.
  fs::remove(old / "global" / "pg_control");
  run_tool(cluster_->installation(), "pg_ctl", {"-D", data().string(), "-m", "fast", "-w", "stop"});
  const Result undone = recover({"--undo", "--yes"});
  ASSERT_EQ(undone.status, 0) << undone.errors;
  EXPECT_NE(undone.output.find("cannot start"), std::string::npos) << undone.output;
  const Result again = recover();
  EXPECT_EQ(again.status, 0) << again.errors;
}

/// Killed at any moment, and so is what cleans up; in the end there is a cluster with all its rows.
TEST_P(RecoverOnce, killed_at_any_moment_says_what_is_left_and_comes_to_an_end) {
  const fs::path space = place_.path("space");
  fs::create_directory(space);
  place_.give_to_server_user(space);
  cluster_->sql(fmt::format("CREATE TABLESPACE beside LOCATION '{}'", space.string()));
  cluster_->sql("CREATE TABLE there TABLESPACE beside AS SELECT i FROM generate_series(1, 500) i");
  place_.must({"backup"});
  const std::string before = digest(*cluster_);
  const auto run_for = [&](const std::vector<std::string>& arguments, int ms) {
    base::Command command;
    command.argv = {holdfast_binary().string(), "--config", place_.configuration().string(),
                    "recover", "--yes"};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    command.directory = place_.path();
    command.user = base::running_as_root() ? postgres::server_user() : std::nullopt;
    base::Child child(command, place_.path("log"));
    child.wait_for(std::chrono::milliseconds(ms));
    child.signal(SIGKILL);
    child.wait();
  };
  const auto is_open = [&] {
    return fs::exists(place_.path("recoveries")) && fs::exists(journal()) &&
           json::parse(text_of(journal())).at("end") == "open";
  };
  const int rounds = std::getenv("HOLDFAST_LONG") != nullptr ? 40 : 3;
  for (int round = 0; round < rounds; ++round) {
    const int moment = 300 + (round * 7919 + 700) % 4000;
    SCOPED_TRACE(fmt::format("round {}, killed after {} ms", round, moment));
    const bool back = round % 2 == 1;
    run_for({}, moment);
    if (is_open()) {
      EXPECT_NE(place_.holdfast({"status"}).output.find("has not ended"), std::string::npos);
      const Result plan = recover({"--plan"});
      EXPECT_NE(plan.output.find("--resume"), std::string::npos) << plan.output << plan.errors;
      run_for({back ? "--undo" : "--resume"}, moment / 3);
    }
    if (is_open()) {
      const Result ended = recover({back ? "--undo" : "--resume", "--yes"});
      ASSERT_EQ(ended.status, 0) << ended.errors << text_of(place_.path("log"));
    }
    ASSERT_EQ(digest(*cluster_), before);
    EXPECT_EQ(sql("SELECT count(*) FROM public.there"), "500");
    // What is kept is named as such, and nothing else is left.
    for (const auto& each : fs::directory_iterator(place_.path())) {
      const std::string name = each.path().filename();
      if (!name.starts_with("data") || name == "data") continue;
      EXPECT_TRUE(name.find(".before-") != std::string::npos ||
                  name.find(".undone-") != std::string::npos ||
                  name.find(".tablespaces-") != std::string::npos)
          << name;
    }
  }
  // One that was taken back before it had done anything leaves no record.
  if (fs::exists(place_.path("docs/audit/restore-drills/signing-key.pub"))) {
    place_.must({"drill", "verify"});
  }
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
  const Result done = holdfast_as_self(place_, {"recover", "--resume", "--yes"});
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
  const Result undone = holdfast_as_self(place_, {"recover", "--undo", "--yes"});
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
  const Result forced = recover({"--resume", "--yes", "--skip", "prove"});
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
  const Result undone = recover({"--undo", "--yes"});
  EXPECT_EQ(undone.status, 0) << undone.errors;
}

}  // namespace
}  // namespace holdfast::tests
