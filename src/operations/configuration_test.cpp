#include "operations/configuration.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::operations {
namespace {

using base::Code;
using std::chrono::hours;

const std::string without =
    "[cluster.main]\nconnection = \"x\"\ndata_directory = \"/d\"\n"
    "[repository.local]\nurl = \"/r\"\nencryption = \"none\"\n";

KeepRules keep_of(const std::string& lines) {
  return parse_configuration(without + "[keep]\n" + lines, "/holdfast.toml").keep;
}

TEST(Keep, says_every_rule) {
  const KeepRules keep = keep_of(
      "backups = \"10d\"\ndaily = 1\nweekly = 2\nmonthly = 3\nyearly = 4\nwindow = \"2w\"\n"
      "snapshots = \"90d\"\n");
  EXPECT_EQ(keep.age, hours(240));
  EXPECT_FALSE(keep.count);
  EXPECT_EQ(keep.daily, 1U);
  EXPECT_EQ(keep.weekly, 2U);
  EXPECT_EQ(keep.monthly, 3U);
  EXPECT_EQ(keep.yearly, 4U);
  EXPECT_EQ(keep.window, hours(14 * 24));
  EXPECT_EQ(keep.snapshots, hours(90 * 24));
  EXPECT_EQ(keep_of("backups = 7\n").count, 7U);
}

TEST(Keep, B43_lets_nothing_expire_where_it_says_no_rule) {
  EXPECT_FALSE(parse_configuration(without, "/holdfast.toml").keep.expire_anything());
  EXPECT_FALSE(keep_of("snapshots = \"1d\"\n").expire_anything());
  EXPECT_TRUE(keep_of("yearly = 1\n").expire_anything());
  EXPECT_TRUE(keep_of("window = \"1d\"\n").expire_anything());
}

TEST(Keep, that_init_writes_is_read_again) {
  const auto read = parse_configuration(without + std::string(default_keep), "/holdfast.toml");
  EXPECT_EQ(read.keep.age, hours(7 * 24));
  EXPECT_EQ(read.keep.snapshots, hours(30 * 24));
}

TEST(Keep, CC7_CC10_refuses_what_is_unknown_or_means_nothing) {
  for (const char* lines : {"backup = 7",        "backups = 0",
                            "backups = -1",      "backups = 7.0",
                            "backups = nan",     "backups = inf",
                            "backups = true",    "backups = 1000001",
                            "backups = \"\"",    "backups = \"7\"",
                            "backups = \"0d\"",  "backups = \"-7d\"",
                            "backups = \"7 d\"", "backups = \"inf\"",
                            "backups = [7]",     "daily = \"7d\"",
                            "daily = 0",         "weekly = -2",
                            "monthly = 1.5",     "yearly = 99999999999999999999",
                            "window = 7",        "window = \"7\"",
                            "window = \"0s\"",   "snapshots = \"30\"",
                            "snapshots = 30",    "snapshots = \"\""}) {
    try {
      keep_of(std::string(lines) + "\n");
      ADD_FAILURE() << lines << " was taken";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), Code::configuration) << lines;
      EXPECT_NE(error.message().find("/holdfast.toml:8"), std::string::npos) << error.message();
    }
  }
  EXPECT_THROW(parse_configuration("keep = 7\n" + without, "/holdfast.toml"), base::Error);
}

using namespace std::chrono_literals;

Configuration parsed(const std::string& wal) {
  return parse_configuration(
      "[cluster.main]\nconnection = \"x\"\ndata_directory = \"/data\"\n"
      "[repository.r]\nurl = \"/r\"\nencryption = \"none\"\n" +
          wal,
      "/holdfast.toml");
}

TEST(WalSection, has_defaults_and_can_be_set) {
  EXPECT_EQ(parsed("").wal.slot, "holdfast");
  EXPECT_EQ(parsed("").wal.slice_interval, 1s);
  const auto set = parsed("[wal]\nslot = \"dr_2\"\nslice_interval = \"200ms\"\n").wal;
  EXPECT_EQ(set.slot, "dr_2");
  EXPECT_EQ(set.slice_interval, 200ms);
}

TEST(WalSection, that_cannot_be_meant_is_refused) {
  for (const char* wal :
       {"[wal]\nslot = \"Big\"\n", "[wal]\nslot = \"a b\"\n", "[wal]\nslot = \"\"\n",
        "[wal]\nslice_interval = \"1\"\n", "[wal]\nslice_interval = 1\n",
        "[wal]\ncolour = \"blue\"\n", "[[wal]]\nslot = \"a\"\n"}) {
    try {
      parsed(wal);
      ADD_FAILURE() << wal;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::configuration) << wal;
    }
  }
}

Configuration with(const std::string& lines) {
  return parse_configuration(without + lines, "/etc/holdfast.toml");
}

TEST(DrillSection, has_defaults_and_says_everything) {
  const DrillConfiguration none = with("").drill;
  EXPECT_EQ(none.evidence, "/etc/docs/audit/restore-drills");
  EXPECT_EQ(none.signing_key, "/etc/holdfast-drill.key");
  EXPECT_EQ(none.directory, "/var/tmp");
  EXPECT_TRUE(none.amcheck);
  EXPECT_TRUE(none.assertions.empty());
  const DrillConfiguration all = with(
                                     "[drill]\nevidence = \"/srv/drills\"\nsigning_key = \"k\"\n"
                                     "directory = \"/scratch\"\nheartbeat = \"a.b.c\"\n"
                                     "amcheck = \"off\"\napi = \"./api\"\napi_database = \"app\"\n"
                                     "ready = \"http://127.0.0.1/\"\nready_within = \"5s\"\n"
                                     "[[drill.check]]\nname = \"n\"\ndatabase = \"d\"\n"
                                     "sql = \"SELECT 1\"\nexpect = \"1\"\n"
                                     "[[drill.check]]\nname = \"m\"\ndatabase = \"d\"\n"
                                     "sql = \"SELECT 2\"\nexpect = \"2\"\n")
                                     .drill;
  EXPECT_EQ(all.evidence, "/srv/drills");
  EXPECT_EQ(all.signing_key, "/etc/k");
  EXPECT_FALSE(all.amcheck);
  EXPECT_EQ(all.ready_within, std::chrono::seconds(5));
  ASSERT_EQ(all.assertions.size(), 2U);
  EXPECT_EQ(all.assertions[1].sql, "SELECT 2");
}

TEST(DrillSection, CC10_refuses_what_is_unknown_or_means_nothing) {
  for (const char* lines :
       {"[drill]\nevery = \"1d\"", "[drill]\namcheck = \"on\"", "[drill]\namcheck = true",
        "[drill]\napi = \"x\"", "[drill]\nready = \"x\"", "[drill]\nheartbeat = \"b.c\"",
        "[drill]\ncheck = \"x\"", "[[drill.check]]\nname = \"n\"",
        "[[drill.check]]\nname = \"n\"\ndatabase = \"d\"\nsql = \"s\"\nexpect = 1"}) {
    EXPECT_THROW(with(lines), base::Error) << lines;
  }
}

TEST(Objectives, ask_for_a_drill_every_90_days_unless_they_say_otherwise) {
  EXPECT_EQ(with("").objectives.drill_every, hours(90 * 24));
  EXPECT_EQ(with("[objectives]\ndrill_every = \"7d\"\nrto = \"4h\"").objectives.drill_every,
            hours(7 * 24));
  EXPECT_EQ(with("[objectives]\nrto = \"4h\"").objectives.rto, hours(4));
  EXPECT_FALSE(with("[objectives]\ndrill_every = \"off\"").objectives.drill_every);
  EXPECT_THROW(with("[objectives]\ndrill_every = \"never\""), base::Error);
}

TEST(Objectives, promise_an_uptime) {
  EXPECT_DOUBLE_EQ(with("").objectives.uptime, 0.995);
  EXPECT_DOUBLE_EQ(with("[objectives]\nuptime = \"99.95%\"").objectives.uptime, 0.9995);
  for (const char* uptime : {"99.5", "100%", "0%", "-1%", "99.5%%", "%", "nan%"}) {
    EXPECT_THROW(with(fmt::format("[objectives]\nuptime = \"{}\"", uptime)), base::Error) << uptime;
  }
}

TEST(Probes, ask_the_web_or_a_server) {
  const Configuration all = with(
      "[probe.web]\nurl = \"http://a/\"\nexpect = \"204\"\ninterval = \"2s\"\n"
      "[probe.db]\nconnection = \"host=h\"\nsql = \"SELECT 1\"\nexpect = \"1\"\n"
      "timeout = \"3s\"\n[history]\nfile = \"h.sqlite\"\n");
  ASSERT_EQ(all.probes.size(), 2U);
  EXPECT_EQ(all.probes[0].url, "http://a/");
  EXPECT_EQ(all.probes[0].limit, std::chrono::seconds(2)) << "no longer than the interval";
  EXPECT_EQ(all.probes[1].sql, "SELECT 1");
  EXPECT_EQ(all.probes[1].interval, std::chrono::seconds(60));
  EXPECT_EQ(all.probe_history, "/etc/h.sqlite");
  EXPECT_EQ(with("").probe_history, "/etc/docs/audit/probes.sqlite");
}

TEST(Configuration, reads_what_goes_along_with_a_backup) {
  const auto all = with(
      "[files.env]\npath = \"service/\"\n[files.staging]\npath = \"/srv/in\"\nkeep = \"2d\"\n");
  ASSERT_EQ(all.files.size(), 2U);
  EXPECT_EQ(all.files[0].path, "/etc/service") << "beside the configuration";
  EXPECT_EQ(all.files[0].keep, std::chrono::days(7));
  EXPECT_EQ(all.files[1].path, "/srv/in");
  EXPECT_EQ(all.files[1].keep, std::chrono::days(2));
  for (const char* wrong :
       {"[files.a]", "[files.a]\npath = \"/\"", "[files.\"../a\"]\npath = \"/x\"",
        "[files.a]\npath = \"/x\"\nkeep = \"0s\""}) {
    EXPECT_THROW(with(wrong), base::Error) << wrong;
  }
}

TEST(Recover, reads_steps_by_their_names) {
  const RecoverSettings settings =
      parse_configuration(
          without +
              "[recover]\nenvironment_file = \"api.env\"\ndatabase_host = \"new\"\n"
              "database_port = 6000\n[recover.command]\nfence = \"ssh old off\"\n"
              "[recover.undo]\nreconnect = \"x\"\n[recover.limit]\nsmoke = \"3s\"\n"
              "[recover.cloudflare]\ntoken_file = \"cf\"\nzone = \"z\"\nrecord = \"r\"\n"
              "content = \"c\"\n",
          "/etc/holdfast.toml")
          .recover;
  ASSERT_TRUE(settings.edge);
  EXPECT_EQ(settings.edge->token_file, "/etc/cf");
  EXPECT_EQ(settings.edge->type, "CNAME");
  EXPECT_EQ(settings.environment_file, "/etc/api.env");
  EXPECT_EQ(settings.state, "/etc/recoveries");
  EXPECT_EQ(settings.database_port, 6000);
  EXPECT_EQ(settings.variable, "DATABASE_URL");
  EXPECT_EQ(settings.command(RecoveryStep::fence), "ssh old off");
  EXPECT_FALSE(settings.command(RecoveryStep::reconnect));
  EXPECT_EQ(settings.undo_command(RecoveryStep::reconnect), "x");
  EXPECT_EQ(settings.limit(RecoveryStep::smoke), std::chrono::seconds(3));
  for (std::size_t i = 0; i < recovery_steps; ++i) {
    const auto step = static_cast<RecoveryStep>(i);
    EXPECT_EQ(recovery_step(name_of(step)), step);
    EXPECT_GT(settings.limit(step).count(), 0);
  }
}

TEST(Recover, CC10_refuses_what_means_nothing) {
  for (const char* text :
       {"[recover]\nport = 1\n", "[recover.command]\nfences = \"x\"\n",
        "[recover]\ndatabase_host = \"h\"\n", "[recover]\ndatabase_port = 5\n",
        "[recover.limit]\nsmoke = \"soon\"\n", "[recover.compose]\nfiles = [\"x\"]\n",
        "[recover]\nunit = \"u\"\n[recover.command]\ndeploy = \"d\"\n", "[recover.cloudflare]\n",
        "[recover.cloudflare]\ntokens = \"x\"\n",
        "[recover.cloudflare]\nzone = \"z\"\nrecord = \"r\"\n",
        "[recover.cloudflare]\naccount = \"a\"\ntunnel = \"t\"\nhostname = \"h\"\n",
        "[recover.cloudflare]\nconnector = \"c\"\naccount = \"a\"\n",
        "[recover.cloudflare]\npool = \"p\"\norigin = \"o\"\naddress = \"a\"\n",
        "[recover]\nenvironment_file = \"e\"\ndatabase_host = \"h\"\ndatabase_port = 70000\n"}) {
    try {
      parse_configuration(without + text, "/holdfast.toml");
      ADD_FAILURE() << text;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), Code::configuration) << text;
    }
  }
}

TEST(Probes, CC10_refuse_what_means_nothing) {
  for (const char* lines :
       {"[probe.a]", "[probe.a]\nurl = \"u\"\nsql = \"s\"", "[probe.a]\nsql = \"s\"",
        "[probe.a]\nurl = \"u\"\nconnection = \"c\"\nsql = \"s\"",
        "[probe.a]\nurl = \"u\"\nexpect = \"ok\"", "[probe.a]\nurl = \"u\"\ninterval = \"1d\"",
        "[probe.a]\nurl = \"u\"\ninterval = \"1s\"\ntimeout = \"2s\"",
        "[probe.a]\nurl = \"u\"\ncolour = \"blue\"", "[probe.\"a/b\"]\nurl = \"u\"",
        "[history]\npath = \"x\"", "[history]"}) {
    EXPECT_THROW(with(lines), base::Error) << lines;
  }
}

}  // namespace
}  // namespace holdfast::operations
