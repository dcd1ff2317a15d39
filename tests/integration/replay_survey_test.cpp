// What the WAL behind a backup makes is known before it is replayed.

#include "operations/replay_survey.h"

#include "harness/harness.h"
#include "operations/configuration.h"

namespace holdfast::tests {
namespace {

class ReplaySurveyTest : public testing::TestWithParam<int> {
 protected:
  ReplaySurveyTest() : source_(place_.cluster(GetParam())) {}

  std::string tablespace(const std::string& name) const {
    const fs::path location = place_.path(name);
    fs::create_directories(location);
    place_.give_to_server_user(location);
    source_->sql(fmt::format("CREATE TABLESPACE {} LOCATION '{}'", name, location.string()));
    return location.string();
  }

  operations::ReplaySurvey survey(const std::string& to, unsigned workers = 2) const {
    const auto configuration = operations::read_configuration(place_.configuration());
    const operations::Site site = operations::open_site(configuration, "");
    operations::RestoreRequest request;
    request.to = to;
    const operations::RestorePlan plan = operations::plan_restore(site, request);
    const repository::BackupMap map =
        repository::Backups(site.repository, plan.backup.place).read_map(plan.backup.id);
    return operations::survey_replay(site, plan, map, workers);
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

TEST_P(ReplaySurveyTest, names_tablespaces_and_limits_up_to_the_target) {
  source_->sql("CREATE TABLE t (id int)");
  place_.must({"backup"});
  const std::string first = tablespace("first");
  source_->sql("SELECT pg_create_restore_point('one')");
  source_->sql("ALTER SYSTEM SET max_connections = 123");
  source_->stop();
  source_->start();
  const std::string second = tablespace("second");
  source_->sql("INSERT INTO t SELECT generate_series(1, 300000)");
  source_->sql("SELECT pg_switch_wal()");
  source_->sql("DROP TABLESPACE first");
  source_->sql("SELECT pg_create_restore_point('two')");
  const std::string third = tablespace("third");
  place_.archive_all(*source_);

  const auto one = survey("one");
  ASSERT_EQ(one.tablespaces.size(), 1U);
  EXPECT_TRUE(one.tablespaces[0].creates);
  EXPECT_EQ(one.tablespaces[0].location, first);
  EXPECT_TRUE(one.reached_target);
  EXPECT_EQ(one.limits.max_worker_processes, 8U);
  EXPECT_LT(one.limits.max_connections, 123U);
  EXPECT_EQ(one.limits.max_locks_per_transaction, 64U);

  const auto two = survey("two", 1);
  ASSERT_EQ(two.tablespaces.size(), 3U);
  EXPECT_EQ(two.tablespaces[1].location, second);
  EXPECT_FALSE(two.tablespaces[2].creates);
  EXPECT_EQ(two.tablespaces[2].oid, two.tablespaces[0].oid);
  EXPECT_EQ(two.limits.max_connections, 123U);

  const auto all = survey("latest");
  ASSERT_EQ(all.tablespaces.size(), 4U);
  EXPECT_EQ(all.tablespaces[3].location, third);
  EXPECT_FALSE(all.reached_target);
  EXPECT_GT(all.end, two.end);

  EXPECT_TRUE(survey("immediate").tablespaces.empty());
}

INSTANTIATE_TEST_SUITE_P(Versions, ReplaySurveyTest, testing::Values(15, 17));

}  // namespace
}  // namespace holdfast::tests
