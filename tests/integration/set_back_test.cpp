// A server whose storage was set back to an earlier state, and that lives a second life from there
// under the names of the first (POSTGRES U4, INV-7).

#include <fcntl.h>

#include "base/error.h"
#include "faults/faults.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

const postgres::Settings quiet = {
    {"autovacuum", "off"}, {"checkpoint_timeout", "1h"}, {"wal_keep_size", "256MB"}};

/// A first life with a backup before the snapshot and WAL behind it; then the second one begins.
class SetBack : public testing::Test {
 protected:
  void SetUp() override {
    cluster_ = place_.cluster();
    cluster_->sql("CREATE TABLE t (life text)");
    older_ = place_.must({"backup", "--json"}).json().at("id");
    cluster_->stop();
    const fs::path copy = place_.path("snapshot");
    fs::copy(cluster_->data_directory(), copy, fs::copy_options::recursive);
    start(true);
    cluster_->sql("INSERT INTO t VALUES ('first')");
    first_life_ = cluster_->sql("SELECT clock_timestamp()");
    cluster_->sql("INSERT INTO t VALUES ('first, later')");
    place_.archive_all(*cluster_);
    cluster_->sql("INSERT INTO t VALUES ('first, last')");
    place_.archive_all(*cluster_);
    cluster_->sql("SELECT pg_logical_emit_message(false, '', 'x')");
    archived_ = current_segment(*cluster_);  // the first one that is not
    cluster_->stop(postgres::Server::StopMode::immediate);
    fs::remove_all(cluster_->data_directory());
    fs::rename(copy, cluster_->data_directory());
    for (const auto& each : fs::recursive_directory_iterator(cluster_->data_directory())) {
      place_.give_to_server_user(each.path());
    }
    place_.give_to_server_user(cluster_->data_directory());
    start(false);
    cluster_->sql("INSERT INTO t VALUES ('second')");
  }
  void start(bool archive) {
    postgres::Settings settings = quiet;
    for (const auto& each : archiving(place_)) {
      if (archive) settings.push_back(each);
    }
    cluster_->start(settings);
    point_configuration_at(place_, *cluster_);
  }
  /// Until the second life writes where the first one never was, and archives that.
  void pass_the_first_life() {
    for (std::string segment; segment <= archived_;) {
      segment = current_segment(*cluster_);
      cluster_->sql("SELECT pg_logical_emit_message(false, '', 'x')");
      cluster_->sql("SELECT pg_switch_wal()");
      const fs::path file = cluster_->data_directory() / "pg_wal" / segment;
      const int status = place_.holdfast({"wal", "push", file.string()}).status;
      EXPECT_EQ(status, segment < archived_ ? status_of(base::Code::conflict) : 0) << segment;
    }
  }
  std::string lives(std::string_view name, const std::vector<std::string>& arguments) {
    const auto restored = place_.restored(*cluster_, name, arguments);
    return restored->sql("SELECT string_agg(life, '; ' ORDER BY life) FROM t");
  }
  Result refused(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"restore", place_.path("refused").string()});
    Result result = place_.holdfast(arguments);
    EXPECT_FALSE(fs::exists(place_.path("refused") / "PG_VERSION"));
    return result;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string older_;
  std::string first_life_;
  std::string archived_;
};

TEST_F(SetBack, no_older_backup_is_brought_over_the_break_U4) {
  pass_the_first_life();
  const Result taken = place_.must({"backup", "--json"});
  EXPECT_EQ(taken.json().at("compared"), "content");
  EXPECT_NE(taken.errors.find("set back"), std::string::npos) << taken.errors;

  const auto listed = place_.must({"list", "--json"}).json();
  ASSERT_EQ(listed.at("gaps").size(), 1U);
  EXPECT_EQ(listed.at("gaps")[0].at("is_break"), true);
  const std::string seam = listed.at("gaps")[0].at("from_lsn");
  ASSERT_EQ(listed.at("recovery_windows").size(), 2U) << listed.at("recovery_windows");
  EXPECT_EQ(listed.at("recovery_windows")[0].at("ends_in_break"), true);
  EXPECT_EQ(listed.at("recovery_windows")[1].at("ends_in_break"), false);
  EXPECT_NE(place_.must({"list"}).output.find("BREAK"), std::string::npos);
  EXPECT_NE(place_.holdfast({"status"}).output.find("was set back"), std::string::npos);

  const Result latest = refused({"--backup", older_});
  EXPECT_EQ(latest.status, status_of(base::Code::wal_missing)) << latest.errors;
  EXPECT_NE(latest.errors.find("set back"), std::string::npos) << latest.errors;
  EXPECT_EQ(refused({"--backup", older_, "--to", cluster_->sql("SELECT clock_timestamp()")}).status,
            status_of(base::Code::outside_window));
  EXPECT_EQ(refused({"--backup", older_, "--to", seam}).status,
            status_of(base::Code::outside_window));

  EXPECT_EQ(lives("before", {"--to", first_life_}), "first");
  EXPECT_EQ(lives("latest", {}), "second");

  // The same life goes on: no second break, and its windows are one.
  cluster_->sql("INSERT INTO t VALUES ('second, later')");
  const Result next = place_.must({"backup", "--json"});
  EXPECT_NE(next.json().at("compared"), "content") << next.errors;
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("gaps").size(), 1U);
  EXPECT_EQ(lives("later", {}), "second; second, later");
}

TEST_F(SetBack, no_backup_takes_the_first_life_s_WAL_for_its_own_U4) {
  const Result taken = place_.holdfast({"backup"});
  EXPECT_EQ(taken.status, status_of(base::Code::conflict)) << taken.errors;
  EXPECT_NE(taken.errors.find("standby.signal"), std::string::npos) << taken.errors;
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("backups").size(), 1U);

  // As the hint says.
  cluster_->stop();
  overwrite(cluster_->data_directory() / "standby.signal", "");
  place_.give_to_server_user(cluster_->data_directory() / "standby.signal");
  start(false);
  cluster_->sql("SELECT pg_promote()");
  cluster_->sql("INSERT INTO t VALUES ('second, promoted')");
  const std::string segment = current_segment(*cluster_);
  EXPECT_EQ(segment.substr(0, 8), "00000002");
  cluster_->sql("SELECT pg_switch_wal()");
  place_.must({"wal", "push", (cluster_->data_directory() / "pg_wal" / segment).string()});
  const Result next = place_.must({"backup", "--json"});
  EXPECT_NE(next.errors.find("set back"), std::string::npos) << next.errors;
  const Result latest = refused({"--backup", older_});
  EXPECT_EQ(latest.status, status_of(base::Code::wal_missing)) << latest.errors;
  EXPECT_NE(latest.errors.find("set back"), std::string::npos) << latest.errors;
  EXPECT_EQ(lives("latest", {}), "second; second, promoted");
  EXPECT_EQ(lives("first", {"--timeline", "1"}), "first; first, last; first, later");
}

}  // namespace
}  // namespace holdfast::tests
