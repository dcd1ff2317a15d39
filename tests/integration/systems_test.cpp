// Two systems under one cluster name, as after an upgrade that was tried and taken back: every
// command works for the system of the server that it is for, asks where that cannot be told, and
// lets nothing of the other one go.

#include "base/error.h"
#include "harness/witness.h"
#include "operations/expire.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

int status_of(Code code) {
  return base::info(code).exit_status;
}

/// `old_` was there first; `tried_` was registered with --new-system, backed up, and stopped again.
/// What `old_` wrote before, meanwhile and since is archived.
class TwoSystems : public testing::Test {
 protected:
  TwoSystems() : old_(place_.cluster()) {
    old_->sql("CREATE TABLE t AS SELECT 'old' AS v");
    old_->sql("CREATE TABLE only_old (v text)");
    first_ = backup();
    place_.archive_all(*old_);
    old_->stop();
    tried_ = std::make_unique<Cluster>(installation(17), place_.path("tried"));
    tried_->start(archiving(place_));
    point_configuration_at(place_, *tried_);
    place_.must({"init", "--new-system"});
    tried_->sql("CREATE TABLE t AS SELECT 'tried' AS v");
    second_ = backup();
    tried_->sql("INSERT INTO t VALUES ('lost')");
    tried_moment_ = tried_->sql("SELECT clock_timestamp()");
    tried_->sql("INSERT INTO t VALUES ('later')");
    place_.archive_all(*tried_);
    tried_id_ = postgres::to_string(tried_->session().system_id());
    tried_->stop();
    old_->start();
    point_configuration_at(place_, *old_);
    place_.must({"init"});
    old_id_ = postgres::to_string(old_->session().system_id());
    old_->sql("INSERT INTO t VALUES ('back')");
    segment_ = finish_segment(place_, *old_);
    old_->sql("INSERT INTO t VALUES ('on')");
    place_.archive_all(*old_);
  }

  std::string backup() const { return place_.must({"backup", "--json"}).json().at("id"); }
  static std::string rows(const Cluster& cluster) {
    return cluster.sql("SELECT string_agg(v, ' ' ORDER BY v) FROM t");
  }
  void append(const std::string& lines) const {
    overwrite(place_.configuration(), text_of(place_.configuration()) + "\n" + lines + "\n");
  }
  void keep_only(int backups) const {
    std::string text = text_of(place_.configuration());
    text.resize(text.find("[keep]"));
    overwrite(place_.configuration(), text + fmt::format("[keep]\nbackups = {}\n", backups));
  }
  /// The machine of the server is gone, and with it all that says which system is meant.
  void lose_the_server() {
    old_->stop();
    fs::remove_all(old_->data_directory());
  }
  Result fetch(const std::string& segment, const fs::path& from,
               const std::vector<std::string>& more = {}) const {
    base::Command command;
    command.argv = {holdfast_binary().string(),
                    "--config",
                    place_.configuration().string(),
                    "wal",
                    "fetch",
                    segment,
                    place_.path("fetched").string()};
    command.argv.insert(command.argv.end(), more.begin(), more.end());
    command.directory = from;
    if (base::running_as_root()) command.user = postgres::server_user();
    const base::Outcome outcome = base::run(command);
    return {outcome.status, outcome.output, outcome.errors};
  }
  std::vector<std::string> ids() const {
    std::vector<std::string> found;
    const json listed = place_.must({"list", "--json"}).json();
    for (const auto& each : listed.at("backups")) found.push_back(each.at("id"));
    std::ranges::sort(found);
    return found;
  }
  std::string names_both() const { return old_id_ + " " + tried_id_; }
  void expect_asks(const Result& result, Code code = Code::usage) const {
    EXPECT_EQ(result.status, code == Code::internal ? 200 : status_of(code)) << result.errors;
    for (const std::string& each : {old_id_, tried_id_, std::string("--system")}) {
      EXPECT_NE(result.errors.find(each), std::string::npos) << each << "\n" << result.errors;
    }
  }

  Place place_;
  std::unique_ptr<Cluster> old_;
  std::unique_ptr<Cluster> tried_;
  std::string first_, second_, old_id_, tried_id_, tried_moment_, segment_;
};

TEST_F(TwoSystems,
       INV6_wal_fetch_takes_the_system_from_pg_control_and_never_says_not_found_unasked) {
  // By hand, where the configuration tells; and as restore_command, in a data directory.
  EXPECT_EQ(fetch(segment_, place_.path()).status, 0);
  EXPECT_EQ(fetch(segment_, old_->data_directory()).status, 0);
  EXPECT_EQ(fetch(current_segment(*old_), place_.path()).status, 1) << "the proven end";
  const Result of_tried = fetch("000000010000000000000001", tried_->data_directory());
  EXPECT_NE(of_tried.status, 200) << of_tried.errors;
  EXPECT_EQ(fetch(segment_, place_.path(), {"--system", tried_id_}).status, 1);

  lose_the_server();
  expect_asks(fetch(segment_, place_.path()), Code::internal);
  EXPECT_EQ(fetch(segment_, place_.path(), {"--system", old_id_}).status, 0);
}

TEST_F(TwoSystems, INV6_wal_fetch_in_the_data_directory_of_a_stranger_stops_recovery) {
  const Cluster stranger(installation(15), place_.path("stranger"));
  const Result result = fetch(segment_, stranger.data_directory());
  EXPECT_EQ(result.status, 200) << result.errors;
}

TEST_F(TwoSystems, restore_brings_back_the_system_of_the_server_and_asks_where_that_is_gone) {
  EXPECT_EQ(rows(*place_.restored(*old_, "latest")), "back old on");
  EXPECT_EQ(rows(*place_.restored(*tried_, "named", {"--system", tried_id_})), "later lost tried");
  expect_asks(place_.holdfast({"restore", place_.path("no").string(), "--to", tried_moment_}));
  EXPECT_EQ(rows(*place_.restored(*tried_, "then", {"--system", tried_id_, "--to", tried_moment_})),
            "lost tried");
  EXPECT_EQ(place_.holdfast({"restore", place_.path("no").string(), "--system", "12"}).status,
            status_of(Code::not_found));
  EXPECT_EQ(place_
                .holdfast({"restore", place_.path("no").string(), "--system", old_id_, "--backup",
                           second_})
                .status,
            status_of(Code::usage));

  lose_the_server();
  expect_asks(place_.holdfast({"restore", place_.path("no").string()}));
  EXPECT_FALSE(fs::exists(place_.path("no"))) << "nothing was written";
  EXPECT_EQ(rows(*place_.restored(*tried_, "by_backup", {"--backup", second_})),
            "later lost tried");
}

TEST_F(TwoSystems, a_moment_that_only_one_of_them_had_needs_no_name) {
  const std::string before = old_->sql("SELECT clock_timestamp()");
  old_->sql("INSERT INTO t VALUES ('after')");
  place_.archive_all(*old_);
  lose_the_server();
  const auto restored = place_.restored(*old_, "moment", {"--to", before});
  EXPECT_EQ(rows(*restored), "back old on") << "the other one's WAL ended before";
}

TEST_F(TwoSystems, drill_and_events_follow_the_system_of_the_server) {
  append(fmt::format("[drill]\ndirectory = \"{}\"\namcheck = \"off\"",
                     place_.path("scratch").string()));
  place_.must({"drill"});
  std::string records;
  for (const auto& [name, content] : tree_of(place_.path("docs/audit/restore-drills"))) {
    records += content;
  }
  EXPECT_NE(records.find(old_id_), std::string::npos) << records;
  EXPECT_EQ(records.find(tried_id_ + "\""), std::string::npos) << records;
  EXPECT_EQ(place_.must({"events", "--since", "1h", "--json"}).json().at("system_id"), old_id_);
  EXPECT_EQ(place_.must({"events", "--since", "1h", "--json", "--system", tried_id_})
                .json()
                .at("system_id"),
            tried_id_);
  lose_the_server();
  expect_asks(place_.holdfast({"events", "--since", "1h"}));
  expect_asks(place_.holdfast({"drill"}));
  expect_asks(place_.holdfast({"drill", "--random"}));
}

TEST_F(TwoSystems, status_doctor_and_list_show_each_and_are_red_only_for_the_one_that_serves) {
  append("[objectives]\nrpo = \"1h\"\ndrill_every = \"off\"");
  // A hole in the WAL of the one that was given up is nothing to the one that serves.
  const Result status = place_.holdfast({"status", "--json"});
  EXPECT_EQ(status.status, 0) << status.output << status.errors;
  EXPECT_EQ(status.json().at("newest_good_backup").at("id"), first_);
  EXPECT_NE(status.output.find(tried_id_), std::string::npos) << status.output;
  const Result doctor = place_.holdfast({"doctor", "--json"});
  EXPECT_EQ(doctor.status, 0) << doctor.output << doctor.errors;
  EXPECT_NE(doctor.output.find(first_), std::string::npos) << doctor.output;
  const json systems = place_.must({"list", "--json"}).json().at("systems");
  ASSERT_EQ(systems.size(), 2U);
  for (const json& each : systems) {
    const bool is_old = each.at("system_id") == old_id_;
    EXPECT_EQ(each.at("in_use"), is_old) << each.dump();
    EXPECT_EQ(each.at("server_version").get<int>() / 10000, is_old ? 15 : 17) << each.dump();
    EXPECT_EQ(each.at("backups"), 1) << each.dump();
    EXPECT_TRUE(each.at("last_backup").is_string() && each.at("last_wal").is_string());
  }
  const std::string text = place_.must({"list"}).output;
  EXPECT_NE(text.find(old_id_), std::string::npos) << text;
  EXPECT_NE(text.find(tried_id_), std::string::npos) << text;
}

TEST_F(TwoSystems, status_is_red_while_the_one_that_serves_has_no_backup) {
  fs::rename(object_of(place_, *old_, "backups"), place_.path("aside"));
  const Result status = place_.holdfast({"status", "--json"});
  EXPECT_EQ(status.status, status_of(Code::check_failed)) << status.output;
  EXPECT_TRUE(status.json().at("newest_good_backup").is_null()) << status.output;
  EXPECT_EQ(place_.holdfast({"doctor"}).status, status_of(Code::check_failed));
  const Result restore = place_.holdfast({"restore", place_.path("no").string()});
  EXPECT_EQ(restore.status, status_of(Code::not_found)) << restore.errors;
  EXPECT_NE(restore.errors.find(tried_id_), std::string::npos) << restore.errors;
}

TEST_F(TwoSystems, INV3_expire_keeps_the_last_good_backup_of_each_until_somebody_lets_it_go) {
  keep_only(1);
  const auto both = ids();
  place_.must({"expire", "--yes"});
  EXPECT_EQ(ids(), both) << "each is the last one of its system";
  backup();
  const std::string newest = backup();
  place_.must({"expire", "--yes"});
  EXPECT_EQ(ids(),
            (std::vector<std::string>{std::min(second_, newest), std::max(second_, newest)}));
  place_.must({"verify"});
  EXPECT_EQ(rows(*place_.restored(*tried_, "still", {"--system", tried_id_})), "later lost tried");

  const Result own = place_.holdfast({"expire", "--yes", "--let-go", old_id_});
  EXPECT_EQ(own.status, status_of(Code::refused)) << own.errors;
  EXPECT_EQ(place_.holdfast({"expire", "--yes", "--let-go", "12"}).status,
            status_of(Code::not_found));
  place_.must({"expire", "--yes", "--let-go", tried_id_});
  EXPECT_EQ(ids(), (std::vector<std::string>{newest}));
}

}  // namespace
}  // namespace holdfast::tests
