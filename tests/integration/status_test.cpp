// `status`: what would be lost, as the WAL's own records tell it; and never better than measured.

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;

constexpr int check_failed = 18;

class Status : public testing::Test {
 protected:
  Status() : source_(place_.cluster()) {
    source_->sql("ALTER SYSTEM SET autovacuum = off");
    source_->sql("SELECT pg_reload_conf()");
    source_->sql("CREATE TABLE t (id int)");
    promise("[objectives]");
    promise("drill_every = \"off\"");  // drill_test.cpp has those
  }

  void promise(const std::string& line) const {
    overwrite(place_.configuration(), text_of(place_.configuration()) + "\n" + line + "\n");
  }
  json status(int expected) const {
    const Result result = place_.holdfast({"status", "--json"});
    EXPECT_EQ(result.status, expected) << result.output << result.errors;
    const json report = result.json();
    EXPECT_EQ(report.at("ok").get<bool>(), expected == 0);
    bool is_bad = false;
    for (const json& finding : report.at("findings")) {
      is_bad = is_bad || finding.at("level") == "BAD";
    }
    EXPECT_EQ(is_bad, expected != 0) << "DS6: the findings decide";
    return report;
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

TEST_F(Status, VE6_DS6_tells_what_was_measured_and_an_idle_server_loses_nothing) {
  promise("rpo = \"1h\"");
  const json none = status(check_failed);  // there is no backup
  EXPECT_TRUE(none.at("rpo").at("measured_s").is_null());
  EXPECT_TRUE(none.at("newest_good_backup").is_null());

  place_.must({"backup"});
  source_->sql("INSERT INTO t VALUES (1)");
  const json busy = status(0);
  EXPECT_GT(busy.at("rpo").at("measured_s").get<double>(), 0);
  EXPECT_LT(busy.at("rpo").at("measured_s").get<double>(), 3600);
  EXPECT_NE(busy.at("rpo").at("how").get<std::string>().find("newer ones"), std::string::npos);

  place_.archive_all(*source_);
  EXPECT_EQ(status(0).at("rpo").at("measured_s"), 0) << "all is in the repository";
  source_->sql("CHECKPOINT");
  EXPECT_EQ(status(0).at("rpo").at("measured_s"), 0) << "a checkpoint is no commit";
  source_->sql("INSERT INTO t VALUES (2)");
  EXPECT_GT(status(0).at("rpo").at("measured_s").get<double>(), 0);

  const Result text = place_.must({"status"});
  EXPECT_NE(text.output.find("1 h 0 min"), std::string::npos) << text.output;

  source_->stop();
  const json gone = status(check_failed);
  EXPECT_GT(gone.at("rpo").at("measured_s").get<double>(), 0) << "at most that";
  EXPECT_NE(gone.at("rpo").at("how").get<std::string>().find("could not be asked"),
            std::string::npos);
}

TEST_F(Status, fails_when_the_objective_is_missed_or_a_slot_has_lost_its_wal) {
  place_.must({"backup"});
  source_->sql("INSERT INTO t VALUES (1)");
  status(0);  // nothing is promised yet
  promise("rpo = \"1s\"");
  eventually("a second has passed", [&] {
    return place_.holdfast({"status", "--json"}).json().at("rpo").at("measured_s") > 1.5;
  });
  status(check_failed);
  place_.archive_all(*source_);
  status(0);

  source_->sql("SELECT pg_create_physical_replication_slot('lagging', true)");
  EXPECT_EQ(status(0).at("slots")[0].at("wal_status"), "reserved");
  source_->sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
  source_->sql("ALTER SYSTEM SET max_wal_size = '32MB'");
  source_->sql("SELECT pg_reload_conf()");
  eventually("the slot has lost its WAL", [&] {
    source_->sql("INSERT INTO t VALUES (2)");
    place_.archive_all(*source_);
    source_->sql("CHECKPOINT");
    return source_->sql("SELECT wal_status FROM pg_replication_slots") == "lost";
  });
  EXPECT_EQ(status(check_failed).at("slots")[0].at("wal_status"), "lost");
}

TEST_F(Status, shows_each_objective_beside_what_was_measured) {
  source_->sql("INSERT INTO t SELECT generate_series(1, 100)");
  place_.must({"backup"});
  place_.archive_all(*source_);
  promise("rpo = \"1h\"\nrto = \"1h\"\n[probe.db]\nconnection = \"" + source_->connection() +
          "\"\nsql = \"SELECT 1\"\ninterval = \"1s\"");
  const auto objectives = [&](int expected) {
    const json report = status(expected);
    std::map<std::string, json> found;
    for (const json& each : report.at("objectives")) found[each.at("name")] = each;
    return found;
  };
  auto found = objectives(check_failed);
  EXPECT_TRUE(found.at("rto").at("measured").is_null()) << "VE6";
  EXPECT_TRUE(found.at("rto").at("held").is_null());
  EXPECT_TRUE(found.at("uptime db").at("measured").is_null());
  place_.must({"drill"});
  place_.must({"probe"});
  eventually("the sample has spoken for some time", [&] {
    return !place_.holdfast({"status", "--json"})
                .json()
                .at("objectives")
                .at(3)
                .at("measured")
                .is_null();
  });
  found = objectives(0);
  EXPECT_EQ(found.at("rpo").at("held"), true);
  EXPECT_EQ(found.at("rto").at("held"), true);
  EXPECT_EQ(found.at("rto").at("target"), 3600);
  EXPECT_GT(found.at("rto").at("measured").get<double>(), 0.05) << "DS9";
  EXPECT_LT(found.at("rto").at("measured").get<double>(), 60);
  EXPECT_EQ(found.at("uptime db").at("measured"), 1);
  EXPECT_LT(found.at("drill").at("measured").get<double>(), 60);
  EXPECT_TRUE(found.at("drill").at("target").is_null());
  std::string text = text_of(place_.configuration());
  overwrite(place_.configuration(), text.replace(text.find("rto = \"1h\""), 10, "rto = \"1ms\""));
  EXPECT_EQ(objectives(check_failed).at("rto").at("held"), false);
}

TEST_F(Status, DS5_a_hole_in_the_wal_is_seen) {
  place_.must({"backup"});
  source_->sql("INSERT INTO t VALUES (1)");
  const std::string hole = finish_segment(place_, *source_);
  source_->sql("INSERT INTO t VALUES (2)");
  finish_segment(place_, *source_);
  status(0);
  fs::remove(object_of(place_, *source_, "wal/00000001/" + hole));
  const json report = status(check_failed);
  EXPECT_GT(report.at("rpo").at("measured_s").get<double>(), 0);
}

TEST_F(Status, refuses_objectives_that_do_nothing) {
  for (const char* line :
       {"uptimes = \"99%\"", "uptime = \"101%\"", "rpo = \"soon\"", "rpo = 5", "rpo = \"\""}) {
    const std::string before = text_of(place_.configuration());
    promise(line);
    const Result result = place_.holdfast({"status"});
    EXPECT_EQ(result.status, 3) << line << result.errors;
    overwrite(place_.configuration(), before);
  }
}

}  // namespace
}  // namespace holdfast::tests
